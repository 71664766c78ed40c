//go:build linux

package real

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
	"golang.org/x/sys/unix"
)

// roleEnv says what a child process is; orderEnv what it is to do.
const (
	roleEnv  = "RUNLOG_REAL_ROLE"
	orderEnv = "RUNLOG_REAL_ORDER"
)

// order is what a child is told.
type order struct {
	Dir         string        // of the runs
	Page        string        // of the disk's page, empty: there is none
	Synchronous bool          // all on one thread
	Segment     int64         // planned bytes of a segment; 0: 64 KiB
	WarnAfter   time.Duration // as in runlog.Options; HaltAfter 0: both are off
	HaltAfter   time.Duration
	Pace        time.Duration // between entries of each producer
	Entries     uint64        // of each producer, then Close; 0: for ever
	Producers   uint64        // that wait for each entry; one more streams, unless Synchronous
	Interval    bool          // SyncInterval, not SyncEachCommit
	Big         int           // bytes of each payload, 0: from few to 8 KiB
	MaxFile     uint64        // RLIMIT_FSIZE
	MaxData     uint64        // bytes of anonymous memory beyond what Go's runtime has mapped at the start
	Cgroup      string        // to enter
	Eat         time.Duration // after which it takes memory without end
	Fail        uint64        // after so many entries the disk fails a write
	Image       string        // of a disk: its backing file
	Log         string        // of a disk: all that was written
	Mount       string        // of a disk
	Seed        uint64        // of lost mappings
	N           int           // of lost mappings: how many cases
}

func (o *order) options() runlog.Options {
	opts := runlog.Options{
		Dir: o.Dir, Instance: instance, SegmentBytes: max(o.Segment, 64<<10), FirstSegmentBytes: 64 << 10, MaxPayload: 8 << 10,
		WarnAfter: -1, HaltAfter: -1, IdleMark: 3 * time.Millisecond, Synchronous: o.Synchronous,
	}
	if o.Interval {
		opts.Sync = runlog.SyncInterval
	}
	if o.HaltAfter > 0 {
		opts.WarnAfter, opts.HaltAfter = o.WarnAfter, o.HaltAfter
	}
	return opts
}

const instance = "real"

var roles map[string]func(*order) error

func init() {
	roles = map[string]func(*order) error{
		"disk": serve, "load": load, "sigbus": loseMappings, "scan": scanAll,
	}
}

// play is the main function of a child.
func play() int {
	var o order
	err := json.Unmarshal([]byte(os.Getenv(orderEnv)), &o)
	if err == nil {
		err = roles[os.Getenv(roleEnv)](&o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// The kinds of records that a child sends.
const (
	recOpened  = iota + 1 // last seq of the newest predecessor, place; its run and the child's own
	recAck                // seq, what it holds, place
	recWarn               // durable watermark then
	recHalt               // durable watermark then, error number of the cause, how long it stalled; reason and text
	recFailed             // Open has failed, or the child ends with an error; the error number; the text
	recDone               // closed
	recTrouble            // a warning about housework
)

// record is one message of a child. A place is how many requests the disk had served.
type record struct {
	What, A, B, C uint64
	Text          string
}

// send writes a record at once, so that a kill cannot cut it.
func send(w io.Writer, what, a, b, c uint64, text string) {
	var rec []byte
	for _, n := range []uint64{what, a, b, c, uint64(len(text))} {
		rec = binary.LittleEndian.AppendUint64(rec, n)
	}
	_, _ = w.Write(append(rec, text...))
}

func receive(r io.Reader) (rec record, err error) {
	var b [40]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return rec, err
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	text := make([]byte, word(4))
	_, err = io.ReadFull(r, text)
	return record{word(0), word(1), word(2), word(3), string(text)}, err
}

// ack is what a child has acknowledged.
type ack struct{ seq, id, place uint64 }

// child is a process that was started, and what it has said so far.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has ended and all its records are here
	big    int

	mu    sync.Mutex
	all   []record // without acks
	acks  []ack
	run   string // empty: Open has not returned
	first uint64 // place when Open had returned
	prior string // the newest run that it found
	had   uint64 // entries of that
}

// start starts a child; wrap is what to run it under, such as strace.
func start(role string, o *order, wrap ...string) (*child, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(wrap, exe, "-test.run=^$")
	c := &child{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{}), big: o.Big}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role, orderEnv+"="+string(text))
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if len(wrap) > 0 {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that stop reaches both
	}
	forking.Lock()
	err = c.cmd.Start()
	forking.Unlock()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		in := bufio.NewReader(out)
		for {
			rec, err := receive(in)
			if err != nil {
				break
			}
			c.hear(rec)
		}
		_ = c.cmd.Wait()
	}()
	return c, nil
}

// forking keeps this process from having files open on a file system under test while it starts others: between fork and
// exec these have all of its files, and so would keep busy what is about to be unmounted.
var forking sync.RWMutex

// judge lets the oracle judge what is in the folder: again times with recovery, appending and closing, and once more.
func judge(h *oracle.History, dir string, again int) error {
	forking.RLock()
	defer forking.RUnlock()
	return h.Judge(vfs.OS, (&order{Dir: dir}).options(), again, nil)
}

func (c *child) hear(rec record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch rec.What {
	case recAck:
		c.acks = append(c.acks, ack{rec.A, rec.B, rec.C})
		return
	case recOpened:
		c.prior, c.run, _ = strings.Cut(rec.Text, "\n")
		c.had, c.first = rec.A, rec.C
	}
	c.all = append(c.all, rec)
}

// said returns the n-th record of a kind, from 0 on.
func (c *child) said(what uint64, n int) (rec record, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rec := range c.all {
		if rec.What == what {
			if n--; n < 0 {
				return rec, true
			}
		}
	}
	return rec, false
}

// await waits until the child has said something of this kind.
func (c *child) await(what uint64, limit time.Duration) (record, error) {
	for until := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		ended := false
		select {
		case <-c.ended:
			ended = true
		default:
		}
		if rec, ok := c.said(what, 0); ok {
			return rec, nil
		}
		if ended || time.Now().After(until) {
			return record{}, fmt.Errorf("the child has not said %d in %v (ended: %v): %v %s", what, limit, ended, c.all, c.stderr.Bytes())
		}
	}
}

// stop kills the child, if it is alive, and returns when it is gone.
func (c *child) stop() {
	select {
	case <-c.ended: // and its pid may be another's
	default:
		if _ = c.cmd.Process.Kill(); c.cmd.SysProcAttr != nil {
			_ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
		}
	}
	<-c.ended
	_ = c.stdin.Close()
}

// failure is what the child has said on standard error.
func (c *child) failure() error {
	if c.stderr.Len() > 0 {
		return fmt.Errorf("the child failed by itself: %s", c.stderr.Bytes())
	}
	return nil
}

// checkHalt waits until the child's run halts, and checks what it says about that: the reason, one of the causes, and a
// durable watermark that covers all that was acknowledged.
func (c *child) checkHalt(reason writer.Reason, causes ...syscall.Errno) (record, error) {
	h, err := c.await(recHalt, time.Minute)
	if err != nil {
		return h, err
	}
	said, text, _ := strings.Cut(h.Text, "\n")
	if said != string(reason) || len(causes) > 0 && !slices.Contains(causes, syscall.Errno(h.B)) {
		return h, fmt.Errorf("want a halt for %s and %v: %s: %s", reason, causes, said, text)
	}
	return h, nil
}

// finish lets a halted child close its run, and returns what the durable watermark is in the end. No call may have said
// that anything behind it is durable.
func (c *child) finish() (durable uint64, err error) {
	if _, err := io.WriteString(c.stdin, "\n"); err != nil {
		return 0, err
	}
	_, err = c.await(recDone, time.Minute)
	c.stop()
	if err = errors.Join(err, c.failure()); err != nil {
		return 0, err
	}
	durable = c.last(recWarn).A
	return durable, c.ackedUpTo(durable)
}

// ackedUpTo is an error if more was acknowledged.
func (c *child) ackedUpTo(durable uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.acks {
		if a.seq > durable {
			return fmt.Errorf("seq %d was acknowledged, but %d is the last durable one", a.seq, durable)
		}
	}
	return nil
}

// haltedForGood finishes the child and checks that nothing has become durable since its halt.
func (c *child) haltedForGood(h record) error {
	durable, err := c.finish()
	if err == nil && durable != h.A {
		err = fmt.Errorf("the durable watermark went from %d to %d after the halt", h.A, durable)
	}
	return err
}

// acked is the number of acknowledgements so far.
func (c *child) acked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}

// awaitAcks waits until so many entries were acknowledged.
func (c *child) awaitAcks(n int) error {
	if _, err := c.await(recOpened, time.Minute); err != nil {
		return err
	}
	for until := time.Now().Add(time.Minute); c.acked() < n; time.Sleep(time.Millisecond) {
		select {
		case <-c.ended:
			return fmt.Errorf("the child has ended: %w", c.failure())
		default:
		}
		if time.Now().After(until) {
			return fmt.Errorf("%d entries were acknowledged in a minute", c.acked())
		}
	}
	return nil
}

// upTo is the highest seq that was acknowledged when the disk had served so many requests, and whether Open had returned.
func (c *child) upTo(place uint64) (seq uint64, opened bool) {
	if c.run == "" || c.first > place {
		return 0, false
	}
	seq = 1 // RunStarted
	for _, a := range c.acks {
		if a.place <= place {
			seq = max(seq, a.seq)
		}
	}
	return seq, true
}

// promise notes what the child has promised by then.
func (c *child) promise(h *oracle.History, place uint64) {
	seq, opened := c.upTo(place)
	if !opened && c.run == "" {
		return
	}
	h.Promise(c.run, c.want(), seq)
	if was, ok := h.Runs[c.prior]; ok && opened {
		was.Exact = &c.had
		h.Runs[c.prior] = was
	}
}

// want returns what should be at a seq: what was acknowledged there, or else what the entry itself claims to be, if it
// is not there twice.
func (c *child) want() func(got *runlog.Entry) (runlog.Entry, error) {
	acks := make(map[uint64]uint64, len(c.acks))
	for _, a := range c.acks {
		acks[a.seq] = a.id
	}
	seen := map[uint64]uint64{}
	return func(got *runlog.Entry) (runlog.Entry, error) {
		if got.Seq == 1 {
			return oracle.Started, nil
		}
		id, acked := acks[got.Seq]
		if !acked {
			if got.IsLifecycle() {
				return oracle.Ended, nil
			}
			if len(got.Payload) < 8 {
				return runlog.Entry{}, errors.New("nobody submitted it")
			}
			id = binary.LittleEndian.Uint64(got.Payload)
		}
		if at, twice := seen[id]; twice && at != got.Seq {
			return runlog.Entry{}, fmt.Errorf("entry %#x is at seq %d too", id, at)
		}
		seen[id] = got.Seq
		return oracle.EntryOf(made(id, c.big)), nil
	}
}

// always is a place behind all others.
const always = ^uint64(0)
