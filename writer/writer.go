package writer

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Writer is the queue in front of a log. All methods are safe for concurrent use.
type Writer struct {
	o   Options
	log Log

	accepted atomic.Uint64         // written under mu
	noted    atomic.Uint64         // notes that were accepted; written under mu
	kept     atomic.Uint64         // of them, how many are durable; written under lead
	dead     atomic.Pointer[error] // set once, under mu: what every later call returns

	mu      sync.Mutex
	fill    *entry.Batch // what waits for the next commit
	lossy   lossy        // what TryNote has put into fill
	trail   int          // bytes of the notes in fill that no draft follows
	lastPub int64        // publish time of the last accepted entry
	queue   []*waiter    // submitters that wait for room, in order
	parked  bool         // the goroutine sleeps until somebody wakes it
	phase   phase

	lead leadLock // held by whoever works on the log
	// Guarded by lead:
	taking   *entry.Batch // what is being committed
	written  uint64       // notes that are written
	nextSeq  uint64       // of the next entry to be written
	failed   error        // from the log
	company  int          // how many waiters the last commit has released
	expected uint64       // what is accepted when all of them have submitted again
	lastSync time.Time
	sealing  bool // Log.Seal was called: it has ended the log, whether it succeeded or not

	commits atomic.Uint64 // odd while a commit is in the disk

	wmu     sync.Mutex
	waiting []*waiter // for durability

	waiters sync.Pool // of *waiter; not shared between writers, since a channel belongs to its synctest bubble

	wake     chan struct{} // cap 1: work for the goroutine, now
	halting  chan struct{} // closed when the run halts
	done     chan struct{} // closed when nothing more will happen
	watching chan struct{} // cap 1: work for the watchdog
	closeErr error         // valid when done is closed
	last     *entry.Draft  // what Close ends the run with
	ended    bool          // guarded by mu: last was accepted, so that the run ends well or by a fault, but is not given up any more
}

type phase uint8

const (
	phaseOpen phase = iota
	phaseClosing
	phaseSealing // everything is durable and the seal is under way: too late for a stall to halt the run
	phaseHalted
	phaseClosed
)

// New starts a writer on a log whose last entry has seq lastSeq. maxBatch bounds the drafts of one batch, in bytes.
func New(log Log, lastSeq uint64, maxBatch int, o Options) (*Writer, error) {
	if err := o.resolve(maxBatch); err != nil {
		return nil, err
	}
	w := &Writer{
		o: o, log: log, fill: &entry.Batch{}, taking: &entry.Batch{}, nextSeq: lastSeq + 1,
		lead: make(leadLock, 1), wake: make(chan struct{}, 1), halting: make(chan struct{}), done: make(chan struct{}), watching: make(chan struct{}, 1),
	}
	w.accepted.Store(lastSeq)
	w.lastPub = math.MinInt64
	w.lastSync = time.Now()
	if !o.Synchronous && !o.Manual {
		go w.run()
		if o.WarnAfter > 0 || o.HaltAfter > 0 {
			go w.watch()
		}
	}
	return w, nil
}

// Accepted is the last seq that was given out.
func (w *Writer) Accepted() uint64 { return w.accepted.Load() }

// Written is the last seq that is in the file.
func (w *Writer) Written() uint64 { return w.log.Written().Load() }

// Durable is the last seq that no crash can take back.
func (w *Writer) Durable() uint64 { return w.log.Durable().Load() }

// Done is closed when a Close, or the end of a halted run, has been carried out.
func (w *Writer) Done() <-chan struct{} { return w.done }

// Err returns nil, the *HaltError, or ErrClosed.
func (w *Writer) Err() error {
	if e := w.dead.Load(); e != nil {
		return *e
	}
	return nil
}

// Submit accepts a draft: it copies it, gives it the next seq and the time, and returns. The entry is not durable
// yet. A draft that breaks a limit is refused with ErrInvalid, and nothing is written. If the queue is full, Submit
// waits its turn.
func (w *Writer) Submit(d *entry.Draft) (uint64, error) {
	if e := w.dead.Load(); e != nil {
		return 0, *e
	}
	kinds := w.log.Kinds()
	if err := d.Check(kinds, w.o.MaxPayload); err != nil {
		return 0, err
	}
	if len(d.Topic) >= len(entry.LifecyclePrefix) && strings.HasPrefix(d.Topic, entry.LifecyclePrefix) {
		return 0, fmt.Errorf("%w: topics under %q are runlog's own", format.ErrInvalid, entry.LifecyclePrefix)
	}
	return w.submit(d, kinds)
}

// SubmitOwn submits a lifecycle entry.
func (w *Writer) SubmitOwn(d *entry.Draft) (uint64, error) { return w.submit(d, w.log.Kinds()) }

func (w *Writer) submit(d *entry.Draft, kinds *entry.Kinds) (uint64, error) {
	w.mu.Lock()
	if w.phase != phaseOpen || len(w.queue) > 0 || w.full(d.Size(), false) {
		return w.submitSlow(d, kinds)
	}
	seq, err := w.put(d, kinds)
	wake := w.parked
	w.parked = false
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if wake {
		w.kick()
	}
	if w.o.Synchronous {
		return seq, w.commitNow()
	}
	return seq, nil
}

// full reports whether a draft, or a note, of size bytes has to wait. Notes that no draft separates go into one commit, so
// there may not be more of them than that takes. It is called with mu held.
func (w *Writer) full(size int, note bool) bool {
	n := w.fill.Len() + w.fill.Notes() - w.lossy.notes
	return n > 0 && (n >= w.o.QueueEntries || w.fill.Bytes()-w.lossy.bytes+size > w.o.QueueBytes || note && w.trail+size > w.o.BatchBytes)
}

// maxPublish is the last time that is taken from a clock: the hour behind it keeps times rising when a clock has gone mad.
const maxPublish = math.MaxInt64 - int64(time.Hour)

// put accepts the draft. It is called with mu held.
func (w *Writer) put(d *entry.Draft, kinds *entry.Kinds) (uint64, error) {
	var now int64
	if w.o.KeepPublish && d.TsPublish != 0 {
		if now = d.TsPublish; now <= w.lastPub {
			return 0, fmt.Errorf("%w: ts_publish %d does not come after %d, the one before", format.ErrInvalid, now, w.lastPub)
		}
	} else {
		now = max(min(w.o.Clock.Now(), maxPublish), w.lastPub+1)
	}
	w.lastPub = now
	w.fill.Add(d, kinds, now)
	w.trail = 0
	seq := w.accepted.Load() + 1
	w.accepted.Store(seq)
	return seq, nil
}

// submitSlow waits for room, in order. It is called with mu held and releases it.
func (w *Writer) submitSlow(d *entry.Draft, kinds *entry.Kinds) (uint64, error) {
	me, err := w.waitTurn(d.Size(), false)
	if err != nil {
		return 0, err
	}
	seq, err := w.put(d, kinds)
	w.leaveQueue(me)
	w.mu.Unlock()
	w.waiters.Put(me)
	if err == nil && w.o.Synchronous {
		err = w.commitNow()
	}
	return seq, err
}

// waitTurn waits until there is room for a draft, or a note, of size bytes, in order. It is called with mu held, and returns with mu
// held unless there is an error; then the caller puts its thing and leaves the queue.
func (w *Writer) waitTurn(size int, note bool) (*waiter, error) {
	if w.phase != phaseOpen {
		w.mu.Unlock()
		return nil, w.Err()
	}
	if w.o.Manual {
		w.mu.Unlock()
		return nil, errQueueFull
	}
	me := w.newWaiter(goal{})
	w.queue = append(w.queue, me)
	w.parked = false
	w.mu.Unlock()
	w.kick()
	if w.o.Synchronous {
		if err := w.commitNow(); err != nil {
			return nil, err
		}
	}
	for {
		select {
		case <-me.ch:
		case <-w.halting:
		}
		w.mu.Lock()
		if w.phase != phaseOpen {
			w.leaveQueue(me)
			w.mu.Unlock()
			w.waiters.Put(me)
			return nil, w.Err()
		}
		if w.queue[0] == me && !w.full(size, note) {
			return me, nil
		}
		w.mu.Unlock()
	}
}

// leaveQueue takes a submitter out and lets the next one look. It is called with mu held.
func (w *Writer) leaveQueue(me *waiter) {
	for i, q := range w.queue {
		if q == me {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			break
		}
	}
	w.nextInQueue()
}

func (w *Writer) nextInQueue() {
	if len(w.queue) > 0 {
		w.queue[0].nudge()
	}
}

func (w *Writer) kick() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Flush asks for what was submitted so far to be committed without waiting for CommitDelay. It does not wait either.
func (w *Writer) Flush() { w.kick() }

// Append submits a draft and waits until it is durable. If ctx ends first, the entry stays, and its seq is returned
// beside the error.
func (w *Writer) Append(ctx context.Context, d *entry.Draft) (uint64, error) {
	seq, err := w.Submit(d)
	if err != nil {
		return seq, err
	}
	return seq, w.WaitDurable(ctx, seq)
}

// take makes the filled batch the one to commit. It is called with lead held.
func (w *Writer) take() bool {
	w.taking.Reset(w.o.QueueBytes + w.o.QueueBytes/4)
	w.mu.Lock()
	w.taking, w.fill = w.fill, w.taking
	w.lossy, w.trail = lossy{}, 0
	w.nextInQueue()
	w.mu.Unlock()
	return w.taking.Len()+w.taking.Notes() > 0
}

// step is the writer's core: it commits what waits, in batches and with one sync for all of them, or reports that there is
// nothing to do. It is called with lead held.
func (w *Writer) step() (more bool, err error) {
	if w.failed != nil {
		return false, w.failed
	}
	w.gather()
	if !w.take() {
		return false, nil
	}
	for from := 0; ; {
		to := w.cut(from)
		if w.failed = w.append(from, to); w.failed != nil {
			return false, w.failed
		}
		if w.syncDue(); w.failed != nil {
			return false, w.failed
		}
		if from = to; from == w.taking.Len() {
			break
		}
	}
	if w.o.Sync != SyncEachCommit {
		return true, nil
	}
	w.commits.Add(1)
	w.failed = w.sync()
	w.commits.Add(1)
	if w.failed != nil {
		return false, w.failed
	}
	before := w.Accepted()
	w.company = w.wakeDurable()
	w.expected = before + uint64(w.company)
	return true, nil
}

// append writes the drafts from to before to, and their notes, as one batch. It is called with lead held.
func (w *Writer) append(from, to int) error {
	w.commits.Add(1)
	err := w.log.Append(w.taking, from, to, w.nextSeq)
	w.commits.Add(1)
	if err != nil {
		return err
	}
	i, j := w.taking.NotesBetween(from, to)
	w.written += uint64(j - i)
	w.nextSeq += uint64(to - from)
	return nil
}

// sync makes what is written durable. It is called with lead held.
func (w *Writer) sync() error {
	err := w.log.Sync()
	if err == nil && w.o.Sync != SyncNever {
		w.kept.Store(w.written)
	}
	return err
}

// cut returns where the batch that begins with draft from of taking ends. The notes behind a draft stay with it.
func (w *Writer) cut(from int) int {
	note, notes := w.taking.NotesBetween(from, w.taking.Len())
	bytes := 0
	for i := from; i < w.taking.Len(); i++ {
		if i-from >= w.o.BatchEntries {
			return i
		}
		for ; note < notes; note++ {
			if before, _, _ := w.taking.NoteAt(note); before > i {
				break
			}
			bytes += w.taking.NoteCost(note)
		}
		bytes += w.taking.Cost(i)
		if bytes > w.o.BatchBytes && i > from {
			return i
		}
	}
	return w.taking.Len()
}

// Step commits what waits, for a driver of a Manual writer. more is false when there was nothing to do. An error has
// halted the run.
func (w *Writer) Step() (more bool, err error) {
	w.lead.Lock()
	more, err = w.step()
	w.lead.Unlock()
	if err != nil {
		w.halt(err)
		return false, w.Err()
	}
	if w.o.Synchronous {
		w.handOver() // to who could not lead meanwhile
	}
	return more, nil
}

// commitNow is what Submit does in synchronous mode.
func (w *Writer) commitNow() error {
	for {
		more, err := w.Step()
		if err != nil || !more {
			return err
		}
	}
}
