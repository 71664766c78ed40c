// Command exchange shows what runlog is for: a small exchange that is killed in the middle of its work, and that loses
// nothing which anybody was told.
//
//	go run ./examples/exchange            the demonstration, in under a minute
//	go run ./examples/exchange --help     what can be varied
//
// The packages beside this file are the parts of a real engine: book is the state, flow brings the commands, engine
// captures them before it acts and lets messages out when they are durable. Start reading at engine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/runlog-io/runlog/examples/exchange/flow"
)

const usage = `exchange: a limit order book that survives kill -9.

  exchange [demo] [flags]   run the flow in a child process, kill it with SIGKILL in the middle, start it again, and
                            compare the outcome with an uninterrupted run of the same flow
  exchange --input FILE     capture recorded market-by-order data (Databento binary encoding, version 1; plain or
                            zstd) as venue reports, and compare what the log holds with the file
  exchange run --dir DIR    only the engine: start, or go on where the log in DIR ends. Kill it yourself, and start it
                            again; once it has come to its end, the next start begins a new story

What the demonstration does, step by step:

  1. A seeded generator makes realistic order flow. The engine captures each command in the log, then carries it out
     in the book, then captures the events that came of it. It does not wait for the disk in doing so.
  2. Each event is a message to a client. It waits at a gate until the log says that its entry is durable; only then
     it goes out, here through a pipe to the parent process, which keeps account of what it was told.
  3. The parent kills the child, at moments that depend on the seed. What was accepted but not durable may be lost;
     nobody has heard of it.
  4. The next child opens the log. runlog drops the torn end of the last run and hands out the chain of runs. The
     engine restores its last snapshot, applies the commands behind it again and compares the events, captures the
     events that the torn end has lost, sends the messages that the parent has not got, and goes on with the flow
     where the log ends.
  5. At the end the runs and the snapshots are verified, every message is looked up in the log, and the state is
     compared with that of the uninterrupted run, and with the state rebuilt from the log alone, which on its way must
     also give each state hash that the engine has recorded.

Exit code: 0 if all answers are "yes"; 1 if one is "no", the input is malformed, or the engine's last run cannot be
used; 2 if it could not be done.

Flags:
`

// config is what the flags say.
type config struct {
	orders uint64
	seed   uint64
	dir    string
	keep   bool
	kills  int
	input  string

	instance string   // of run
	feed     bool     // of run: write messages to stdout
	ack      uint64   // of run: the last message that the parent has got
	without  []string // of run: ids of unusable runs to go on without

	stdout io.Writer
	stderr io.Writer
	tty    bool      // stderr is a terminal: show progress
	shown  time.Time // when progress was last shown

	child func(ctx context.Context, args ...string) (*exec.Cmd, error) // this program again
}

// errNo: the outcome is not what runlog promises. The report has said what is wrong.
var errNo = errors.New("an answer is \"no\"")

// errUsage: the flags make no sense. The message has been printed.
var errUsage = errors.New("usage")

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := command(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(stderr, "exchange: interrupted")
		return 130
	}
	_, _ = fmt.Fprintln(stderr, "exchange:", err)
	if errors.Is(err, errNo) || errors.Is(err, errUnusable) || errors.Is(err, flow.ErrMalformed) {
		return 1
	}
	return 2
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := config{stdout: stdout, stderr: stderr, child: self}
	if f, ok := stderr.(*os.File); ok {
		info, err := f.Stat()
		c.tty = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	verb := "demo"
	if len(args) > 0 && (args[0] == "demo" || args[0] == "run") {
		verb, args = args[0], args[1:]
	}
	if err := c.parse(verb, args); err != nil {
		return err
	}
	switch {
	case verb == "run":
		return c.runEngine(ctx)
	case c.input != "":
		return c.inFolder(func(dir string) error { return c.captureInput(ctx, dir) })
	}
	return c.inFolder(func(dir string) error { return c.demo(ctx, dir) })
}

func (c *config) parse(verb string, args []string) error {
	f := flag.NewFlagSet("exchange "+verb, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Uint64Var(&c.orders, "orders", 1_000_000, "orders' worth of flow; each brings about two commands")
	f.Uint64Var(&c.seed, "seed", 1, "seed of the flow, and of the moments of the kills")
	f.StringVar(&c.dir, "dir", "", "folder to work in (default: a new one in the system's temporary folder)")
	if verb == "run" {
		f.StringVar(&c.instance, "instance", instance, "name of the engine's instance")
		f.BoolVar(&c.feed, "feed", false, "write messages and progress to stdout, in binary, for the demonstration")
		f.Func("without", "go on without the state in this `run`, which is damaged; may be repeated", func(id string) error {
			c.without = append(c.without, id)
			return nil
		})
		f.Uint64Var(&c.ack, "ack", 0, "number of the last message that was received; later ones are sent again")
	} else {
		f.BoolVar(&c.keep, "keep", false, "leave the runs on the disk, and say where")
		f.IntVar(&c.kills, "kills", 2, "how often the child is killed")
		f.StringVar(&c.input, "input", "", "market-by-order `file` to capture in place of the demonstration")
	}
	bad := func(why string) error {
		_, _ = fmt.Fprintf(c.stderr, "exchange: %s (--help explains)\n", why)
		return errUsage
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(c.stdout, usage)
		f.SetOutput(c.stdout)
		f.PrintDefaults()
		return err
	} else if err != nil {
		return bad(err.Error())
	}
	switch {
	case f.NArg() > 0:
		return bad(fmt.Sprintf("unknown argument %q", f.Arg(0)))
	case c.orders == 0:
		return bad("--orders must be at least 1")
	case c.kills < 0 || c.kills > 100:
		return bad("--kills must be 0 to 100")
	case verb == "run" && c.dir == "":
		return bad("run needs --dir")
	}
	return nil
}

// self makes a command that runs this program again; it dies with ctx.
func self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, exe, args...), nil
}

// inFolder calls do with a folder to work in, and afterwards removes what do made there, however it ended, unless that
// shall be kept.
func (c *config) inFolder(do func(dir string) error) (err error) {
	dir := c.dir
	var ours []string // what has to go
	if dir == "" {
		if dir, err = os.MkdirTemp("", "runlog-exchange-"); err != nil {
			return err
		}
		ours = append(ours, dir)
	} else {
		for _, name := range []string{instance, uninterrupted} {
			sub := filepath.Join(dir, name)
			if _, err := os.Stat(sub); err == nil {
				return fmt.Errorf("%s exists already: remove it, or name another --dir", sub)
			}
			ours = append(ours, sub)
		}
		// The folder may hold other things, unless it is new.
		for d := dir; ; d = filepath.Dir(d) {
			if _, err := os.Stat(d); err == nil || d == filepath.Dir(d) {
				break
			}
			ours = append(ours, d)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	defer func() {
		if c.keep {
			c.printf("\nkept in %s\n", dir)
			return
		}
		for _, d := range ours {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}()
	return do(dir)
}
