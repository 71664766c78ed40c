package runlog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/drive"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// Run is a run that this process writes. Close it when the engine stops.
type Run struct {
	o            Options
	id           string
	log          *wal.Log
	w            *writer.Writer
	r            *Reader
	lock         io.Closer
	predecessors []Predecessor

	mu      sync.Mutex
	parents []*Reader // opened when first asked for
	broken  error     // why there are no more: the next one is gone
	loaded  bool
	cleanup sync.Once

	anchors, hashes recorded // see Anchor, StateHash

	retaining sync.Mutex // held while runs or segments are removed; release waits for it
	released  bool       // guarded by retaining
}

// Open starts a run: it locks the instance (ErrLocked names the holder), recovers or quarantines runs whose process
// died, makes the new run with its parent, and returns when its first entry, RunStarted, is durable (under SyncNever:
// accepted). If ctx ends before, it returns ctx's error, however the disk hangs; the run is abandoned, and the instance
// stays locked until the disk has answered.
func Open(ctx context.Context, o Options) (*Run, error) {
	if err := o.resolve(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("runlog: open %s: %w", o.Instance, err)
	}
	if o.Synchronous || ctx.Done() == nil || drive.From(ctx) != nil {
		return boot(ctx, o)
	}
	type outcome struct {
		r   *Run
		err error
	}
	opened := make(chan outcome, 1)
	go func() {
		r, err := boot(ctx, o)
		opened <- outcome{r, err}
	}()
	select {
	case out := <-opened:
		return out.r, out.err
	case <-ctx.Done():
		err := fmt.Errorf("runlog: open %s: the disk has not answered in time: %w", o.Instance, ctx.Err())
		go func() {
			if out := <-opened; out.err == nil {
				out.r.abandon(err)
			}
		}()
		return nil, err
	}
}

func boot(ctx context.Context, o Options) (*Run, error) {
	base := filepath.Join(o.Dir, o.Instance)
	if err := o.checkContinue(base); err != nil { // before anything is changed
		return nil, err
	}
	if err := o.FS.MkdirAll(base); err != nil {
		return nil, fmt.Errorf("runlog: option Dir: %w", err)
	}
	if err := o.FS.SyncDir(o.Dir); err != nil { // the instance's folder may be the work of a process that died before it could
		return nil, fmt.Errorf("runlog: option Dir: %w", err)
	}
	lock, err := lockInstance(&o, base)
	if err != nil {
		return nil, err
	}
	r, id, err := create(ctx, o, base, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := r.start(ctx, id); err != nil {
		err = fmt.Errorf("runlog: start run %s: RunStarted is not durable: %w", r.id, err)
		r.abandon(err)
		return nil, err
	}
	return r, nil
}

// abandon gives up a run that was never handed out: it stays unsealed, so that it cannot consume its parent. The lock
// is kept as long as a hung disk may still write.
func (r *Run) abandon(cause error) {
	r.w.Abandon(cause)
	var h *HaltError
	if errors.As(cause, &h) && h.Reason != writer.ReasonStall {
		<-r.w.Done()
		_ = r.release()
		return
	}
	r.releaseLater()
}

func (r *Run) releaseLater() {
	go func() {
		<-r.w.Done()
		_ = r.release()
	}()
}

func lockInstance(o *Options, base string) (io.Closer, error) {
	host, _ := os.Hostname()
	holder := manifest.Holder{PID: os.Getpid(), Host: host, Since: o.Clock.Now()}
	lock, err := o.FS.Lock(filepath.Join(base, manifest.LockName), manifest.EncodeHolder(holder))
	var held *vfs.LockedError
	if errors.As(err, &held) {
		who := "an unknown process"
		if h, ok := manifest.DecodeHolder(held.Holder); ok {
			who = h.String()
		}
		return nil, fmt.Errorf("runlog: %s: %w by %s", base, ErrLocked, who)
	}
	return lock, err
}

func create(ctx context.Context, o Options, base string, lock io.Closer) (*Run, manifest.Identity, error) {
	now := o.Clock.Now()
	found, err := sweep(&o, base, now)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, manifest.Identity{}, err
	}
	id := manifest.NewRunID(now, found.newest, random32(o.Salts))
	m := manifest.Manifest{
		Identity: o.identity(id, found.parent, manifest.OriginEngine, now),
		Kinds:    o.kinds(), Status: manifest.Running, Skipped: found.skipped,
	}
	lo, wo, d := o.wal(filepath.Join(base, id), m), o.writer(), drive.From(ctx)
	if d != nil {
		lo.Background, wo.Manual = d.Background, true
	}
	log, err := wal.Create(lo)
	if err != nil {
		return nil, m.Identity, fmt.Errorf("runlog: start run %s: %w", id, err)
	}
	w, err := writer.New(log, 0, log.MaxBatchBytes(), wo)
	if err != nil {
		log.Abandon()
		return nil, m.Identity, err
	}
	if d != nil {
		d.Step, d.Mark, d.Sync = w.Step, w.Mark, w.Sync
	}
	return &Run{o: o, id: id, log: log, w: w, r: log.Reader(), lock: lock, predecessors: found.list}, m.Identity, nil
}

// start makes RunStarted durable.
func (r *Run) start(ctx context.Context, id manifest.Identity) error {
	payload, err := manifest.EncodeIdentity(id)
	if err != nil {
		return err
	}
	d := entry.Draft{Topic: entry.TopicStarted, Type: entry.TypeStarted, Payload: payload, TsInit: id.Started}
	seq, err := r.w.SubmitOwn(&d)
	if err != nil {
		return err
	}
	if r.o.Sync == SyncNever {
		return nil
	}
	if d := drive.From(ctx); d != nil { // who would have to wait for itself
		if _, err := d.Step(); err != nil {
			return err
		}
		return d.Sync()
	}
	if err := r.w.WaitDurable(ctx, seq); err != nil {
		return err
	}
	return r.w.Err() // a disk that came back after the halt
}

func random32(salts func() uint64) uint32 {
	if salts != nil {
		return uint32(salts())
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint32(b[:])
}

// ID is the run's id; ids of an instance sort by start time.
func (r *Run) ID() string { return r.id }

// Dir is the run's folder.
func (r *Run) Dir() string { return r.log.Dir() }

// Manifest says who the run is.
func (r *Run) Manifest() Manifest { return r.log.Manifest() }

// Submit accepts a draft and returns its seq at once: the entry is copied and ordered, but not durable yet. It does
// no I/O and does not allocate; when the queue is full it waits its turn. A draft that breaks a limit is refused with
// ErrInvalid and leaves no trace.
func (r *Run) Submit(d Draft) (seq uint64, err error) { return r.w.Submit(&d) }

// Append is Submit and WaitDurable. If ctx ends first, the entry stays in the log and its seq is returned beside the
// error.
func (r *Run) Append(ctx context.Context, d Draft) (seq uint64, err error) {
	return r.w.Append(ctx, &d)
}

// WaitDurable returns nil when seq is durable, ctx's error if that ends first, the *HaltError after a halt, and
// ErrNotDurable at once under SyncNever. A caller whose ctx cannot end may commit on its own goroutine, for others too:
// a thread that must never wait uses Durable or NotifyDurable.
func (r *Run) WaitDurable(ctx context.Context, seq uint64) error { return r.w.WaitDurable(ctx, seq) }

// Flush asks for a commit of what was submitted so far, without waiting for CommitDelay, and returns at once.
func (r *Run) Flush() { r.w.Flush() }

// Accepted is the last seq that Submit gave out.
func (r *Run) Accepted() uint64 { return r.w.Accepted() }

// Written is the last seq that is in the file: a killed process does not lose it, a power cut may.
func (r *Run) Written() uint64 { return r.w.Written() }

// Durable is the last seq that no crash can take back. Whatever leaves the engine waits for it.
func (r *Run) Durable() uint64 { return r.w.Durable() }

// NotifyDurable sends on ch, without ever blocking, whenever Durable advances, until stop is called. With a channel
// of capacity one, advances coalesce and none is missed.
func (r *Run) NotifyDurable(ch chan<- struct{}) (stop func()) { return r.log.Durable().Notify(ch) }

// DeclareKind declares a key kind while the run is open. Declaring it again is fine.
func (r *Run) DeclareKind(name string) error {
	if err := r.Err(); err != nil {
		return err
	}
	_, err := r.log.DeclareKind(name)
	return err
}

// Err returns nil while the run is open, the *HaltError after a halt (errors.Is ErrHalted), and ErrClosed after Close.
func (r *Run) Err() error { return r.w.Err() }

// Reader returns the reader behind the Run's own reading methods.
func (r *Run) Reader() *Reader { return r.r }

// Get copies a durable entry into buf (nil: new memory) and returns a view of the copy. ErrNotFound beyond the end.
func (r *Run) Get(seq uint64, buf *Buffer) (View, error) { return r.r.Get(seq, buf) }

// Lookup returns the first durable entry that carries the key. kind may also be "id" or "correlation_id", the value
// then is UUID text.
func (r *Run) Lookup(kind, value string) (seq uint64, ok bool, err error) {
	return r.r.Lookup(kind, value)
}

// History returns all durable entries that carry the key, in order. A view is valid until the next step.
func (r *Run) History(kind, value string) iter.Seq2[View, error] { return r.r.History(kind, value) }

// Scan returns the selected durable entries in order, or backwards. A view is valid until the next step.
func (r *Run) Scan(o ScanOptions) iter.Seq2[View, error] { return r.r.Scan(o) }

// Tail returns entries as they become durable (or written), until the run is closed, ctx ends, or the loop is left.
func (r *Run) Tail(ctx context.Context, o TailOptions) iter.Seq2[View, error] {
	return r.r.Tail(ctx, o)
}

// Predecessors lists the instance's earlier runs as Open found and left them, oldest first.
func (r *Run) Predecessors() []Predecessor { return append([]Predecessor(nil), r.predecessors...) }

// Parents returns readers of the runs whose state this one continues: its parent first, then the parent's parent, and
// so on. Package replay rebuilds the engine's state from them. They are closed with the Run. A *ParentError says which run
// of the chain cannot be used. If it is gone (errors.Is fs.ErrNotExist), as after a retention, the runs in front of it are
// returned beside the error: package replay says whether a restart needs more.
func (r *Run) Parents() ([]*Reader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded {
		return r.parents, r.broken
	}
	chain, err := openParents(r.o.FS, filepath.Join(r.o.Dir, r.o.Instance), r.Manifest().Identity)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		for _, p := range chain {
			_ = p.Close()
		}
		return nil, err
	}
	r.parents, r.broken, r.loaded = chain, err, true
	return r.parents, r.broken
}

// Close commits what was submitted, writes RunEnded, seals the run and releases the instance. It is idempotent. If
// ctx ends first, closing goes on in the background; call Close again to wait. After a halt it returns the
// *HaltError, and leaves the run to the next Open.
func (r *Run) Close(ctx context.Context) error {
	now := r.o.Clock.Now()
	err := r.w.Close(ctx, &entry.Draft{Topic: entry.TopicEnded, Type: entry.TypeEnded, TsInit: now})
	select {
	case <-r.w.Done():
		return errors.Join(err, r.releaseWithin(ctx))
	default:
		r.releaseLater()
		return fmt.Errorf("runlog: closing goes on in the background: %w", err)
	}
}

// Abandon ends the run as a crash would, for an engine that could not restore its state: what was submitted is
// committed if the disk lets it, but the run stays unsealed and is left to the next Open, which can choose this run's
// parent again unless this run has come to hold state. Every later call returns a *HaltError that wraps cause. A Close
// that has come as far as to write RunEnded is not undone: then the run ends as that Close says, and Err is ErrClosed.
// If ctx ends first, the rest goes on in the background.
func (r *Run) Abandon(ctx context.Context, cause error) error {
	r.w.Abandon(cause)
	select {
	case <-r.w.Done():
		return r.releaseWithin(ctx)
	case <-ctx.Done():
		r.releaseLater()
		return fmt.Errorf("runlog: abandoning goes on in the background: %w", ctx.Err())
	}
}

// releaseWithin is release, which goes on in the background if ctx ends first: a removal may hang in the disk.
func (r *Run) releaseWithin(ctx context.Context) error {
	if r.o.Synchronous || drive.From(ctx) != nil {
		return r.release()
	}
	if r.retaining.TryLock() { // nothing is being removed
		r.retaining.Unlock()
		return r.release()
	}
	done := make(chan error, 1)
	go func() { done <- r.release() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		default:
			return fmt.Errorf("runlog: a removal still holds the instance; it is released in the background: %w", ctx.Err())
		}
	}
}

// release lets go of files and lock, once.
func (r *Run) release() (err error) {
	r.cleanup.Do(func() {
		r.retaining.Lock() // whoever is removing something needs the instance's lock to the end
		r.released = true
		r.retaining.Unlock()
		r.log.Close()
		r.mu.Lock()
		for _, p := range r.parents {
			_ = p.Close()
		}
		r.loaded = true
		r.mu.Unlock()
		err = r.lock.Close()
	})
	return err
}
