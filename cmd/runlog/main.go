// Command runlog is the operator's tool: it lists, shows, searches, verifies, imports and exports the runs of a
// trading engine's log, and proves what is in them. It never changes a run, except that recover does what the engine's next
// start would do, compress changes the form of segments, sign adds a signature to a manifest, and retain removes what it is told
// to; import and salvage write runs of their own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/retention"
)

// Exit codes.
const (
	exitFine    = 0
	exitBad     = 1 // the data is bad
	exitFailed  = 2 // could not do it
	exitTimeout = 3 // verify: a run took longer than --timeout
	exitDied    = 4 // verify: a worker died
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is a write error, see finish
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// app is one invocation.
type app struct {
	ctx    context.Context
	stdin  io.Reader
	out    *output
	stderr io.Writer
	json   bool
	full   bool
	found  bool // something was found to be bad, and said so

	// restorePoints finds the restore points of a run and checks their blobs; nil: none can be checked.
	restorePoints func(r *runlog.Reader) ([]retention.RestorePoint, error)

	noProgress     bool
	timedOut, died bool // verify: of a worker
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{ctx: ctx, stdin: stdin, out: newOutput(stdout), stderr: stderr}
	return a.execute(args)
}

func (a *app) execute(args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.out)
	root.SetErr(a.stderr)
	return a.finish(root.ExecuteContext(a.ctx))
}

// finish flushes, says what went wrong, and decides the exit code.
func (a *app) finish(err error) int {
	if ferr := a.out.Flush(); err == nil {
		err = ferr
	}
	if a.out.closed() { // whoever read has seen enough
		return exitFine
	}
	if a.out.err != nil {
		err = fmt.Errorf("write the output: %w", a.out.err)
	}
	if err != nil {
		what := strings.Split(err.Error(), "\n")
		for i := range what {
			what[i] = strings.TrimPrefix(what[i], "runlog: ") // the library says so, too
		}
		fmt.Fprintf(a.stderr, "runlog: %s\n", printable(strings.Join(what, "; "), -1))
	}
	switch {
	case a.out.err != nil:
		return exitFailed
	case a.found:
		return exitBad
	case a.died:
		return exitDied
	case a.timedOut:
		return exitTimeout
	case err != nil:
		return exitCode(err)
	}
	return exitFine
}

// badData marks an error about input that is not what it must be.
type badData struct{ error }

func (e badData) Unwrap() error { return e.error }

func exitCode(err error) int {
	var bad badData
	switch {
	case errors.As(err, &bad):
		return exitBad
	case errors.Is(err, runlog.ErrVersion), errors.Is(err, runlog.ErrNotRun):
		return exitFailed
	case errors.Is(err, runlog.ErrCorrupt), errors.Is(err, runlog.ErrTorn), errors.Is(err, runlog.ErrWrongKind),
		errors.Is(err, runlog.ErrMappingLost):
		return exitBad
	}
	return exitFailed
}

func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "runlog: note: %s\n", printable(fmt.Sprintf(format, args...), -1))
}

func (a *app) warn(err error) {
	fmt.Fprintf(a.stderr, "runlog: warning: %s\n", printable(strings.ReplaceAll(err.Error(), "\n", "; "), -1))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "runlog",
		Short: "Look into the log of a trading engine",
		Long: `runlog lists, shows, searches and verifies the runs of an engine's log, says why an entry is there, recovers, compresses and salvages runs,
removes what is no longer needed, turns runs into JSON lines and back, and proves to others what is in them.

A RUN is a run's directory, <base>/<instance>/<run-id>; a DIR is the base. Reading takes no lock, writes nothing, and works beside the
engine, on read-only media and on copies. Flags may stand anywhere.

Exit codes: 0 fine; 1 the data is bad; 2 could not do it; verify also has 3, a timeout, and 4, a worker died.`,
		Example: `  runlog ls runs
  runlog info runs/demo/20261123T200248.123456789Z-1a2b3c4d
  runlog history runs/demo/2026* client_order_id=C-1017
  runlog verify runs && runlog export runs/demo/2026* > demo.jsonl`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; see runlog --help", args[0])
			}
			return fmt.Errorf("no command; see runlog --help")
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object a line (fields: docs/cli.md)")
	root.PersistentFlags().BoolVar(&a.noProgress, "no-progress", false, "no progress on stderr, which only a terminal gets anyway")
	root.AddCommand(a.lsCmd(), a.infoCmd(), a.lineageCmd(), a.catCmd(), a.getCmd(), a.historyCmd(), a.whyCmd(), a.anchorsCmd(), a.verifyCmd(), a.recoverCmd(),
		a.compressCmd(), a.salvageCmd(), a.retainCmd(), a.importCmd(), a.exportCmd(), a.statementCmd(), a.checkStatementCmd(), a.signCmd(), a.keygenCmd(),
		a.proveCmd(), a.checkProofCmd(), a.seenCmd(), a.markersCmd(), a.versionCmd(), a.workerCmd())
	return root
}

// exactly refuses a wrong number of arguments, naming what is wanted.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := strings.Join(names, " ")
		if want == "" {
			want = "no arguments"
		}
		return fmt.Errorf("%s: want %s, got %s; see runlog %s --help", cmd.Name(), want, number(len(args), "argument", "arguments"), cmd.Name())
	}
}

// fullFlag adds --full.
func (a *app) fullFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.full, "full", false, "show payloads and keys in full, however long")
}
