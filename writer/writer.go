package writer

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
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

// goal is what somebody waits for: an entry and a note, by its number, to be durable.
type goal struct {
	seq  uint64
	note uint64
}

// waiter is a caller that is blocked.
type waiter struct {
	goal
	ch     chan struct{} // cap 1
	listed atomic.Bool   // in waiting; changed with wmu held, or by its caller while nobody else knows it
}

func (w *Writer) newWaiter(g goal) *waiter {
	me, ok := w.waiters.Get().(*waiter)
	if !ok {
		return &waiter{goal: g, ch: make(chan struct{}, 1)}
	}
	me.goal = g
	select {
	case <-me.ch:
	default:
	}
	return me
}

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

// WaitDurable returns nil when seq is durable. A halt ends the wait with its error. If ctx cannot be cancelled, the
// caller may commit on its own goroutine, and then a hung disk holds it until the disk answers.
func (w *Writer) WaitDurable(ctx context.Context, seq uint64) error {
	if w.Durable() >= seq {
		return nil
	}
	if seq > w.Accepted() {
		return fmt.Errorf("%w: seq %d has not been submitted, the last one is %d", format.ErrInvalid, seq, w.Accepted())
	}
	if w.o.Sync == SyncNever {
		return ErrNotDurable
	}
	return w.wait(ctx, goal{seq: seq})
}

// reached reports whether a goal is durable.
func (w *Writer) reached(g goal) bool { return w.Durable() >= g.seq && w.kept.Load() >= g.note }

// wait is WaitDurable for what was accepted, under a policy that syncs.
func (w *Writer) wait(ctx context.Context, g goal) error {
	mayLead := ctx.Done() == nil && w.o.Sync == SyncEachCommit && !w.o.Manual || w.o.Synchronous
	if !mayLead && w.o.Sync == SyncEachCommit {
		defer w.handOver()
	}
	for !w.reached(g) {
		if err := w.Err(); err != nil && err != format.ErrClosed {
			return err
		}
		if mayLead && w.lead.TryLock() {
			w.commitAsLeader(g)
			continue
		}
		me := w.newWaiter(g)
		w.wmu.Lock()
		w.waiting = append(w.waiting, me)
		me.listed.Store(true)
		w.wmu.Unlock()
		if mayLead && w.lead.TryLock() { // whoever led may have finished before it could see us
			w.leaveWaiting(me)
			w.commitAsLeader(g)
			continue
		}
		if !mayLead && w.o.Sync == SyncEachCommit {
			w.kick()
		}
		if w.reached(g) {
			w.leaveWaiting(me)
			return nil
		}
		err := w.park(ctx, me)
		w.leaveWaiting(me)
		switch {
		case err != nil:
			if mayLead {
				w.handOver() // it may have been this one's turn
			}
			return err
		case isClosed(w.done) && !w.reached(g):
			return w.Err()
		}
	}
	return nil
}

// park blocks until me has been woken, or ctx ends. Whoever ends the run wakes everybody in the list, after halting or done was
// closed; me is in it, and looks at these first. So there is one channel to wait at, which makes a wake-up cheap.
func (w *Writer) park(ctx context.Context, me *waiter) error {
	if isClosed(w.halting) || isClosed(w.done) {
		return nil
	}
	if ctx.Done() == nil {
		<-me.ch
		return nil
	}
	select {
	case <-me.ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// wakeAll wakes everybody who waits, to see that the run has ended.
func (w *Writer) wakeAll() {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	for _, x := range w.waiting {
		x.nudge()
	}
}

// nudge wakes a waiter, unless it has been woken already.
func (x *waiter) nudge() {
	select {
	case x.ch <- struct{}{}:
	default:
	}
}

// wakeDurable wakes those whose seq is durable, and returns how many these are.
func (w *Writer) wakeDurable() int {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return w.release()
}

// release is wakeDurable with wmu held.
func (w *Writer) release() int {
	rest := w.waiting[:0]
	for _, x := range w.waiting {
		if w.reached(x.goal) {
			x.listed.Store(false) // so that its caller need not look for it here
			x.nudge()             // which may be somebody else's by now: whoever is woken looks for himself
		} else {
			rest = append(rest, x)
		}
	}
	n := len(w.waiting) - len(rest)
	w.waiting = rest
	return n
}

// leaveWaiting takes me out of the list, if nobody has, and out of use.
func (w *Writer) leaveWaiting(me *waiter) {
	if me.listed.Load() {
		w.wmu.Lock()
		if i := slices.Index(w.waiting, me); i >= 0 {
			w.waiting = slices.Delete(w.waiting, i, i+1)
		}
		me.listed.Store(false)
		w.wmu.Unlock()
	}
	w.waiters.Put(me)
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

// halt ends the run for the first reason that reaches it.
func (w *Writer) halt(cause error) {
	w.haltWith(&HaltError{Reason: reasonOf(cause), Cause: cause})
}

// Abandon ends the run as a crash would: unsealed, left to the next boot. OnHalt is not called. It returns at once;
// Done tells when the disk has answered and the files are closed. It does nothing once a Close has come as far as to
// end the run: then that is how the run ends, and Err stays ErrClosed.
func (w *Writer) Abandon(cause error) {
	w.end(&HaltError{Reason: ReasonAbandon, Cause: cause}, nil)
}

func (w *Writer) haltWith(h *HaltError) { w.end(h, w.o.OnHalt) }

func (w *Writer) end(h *HaltError, tell func(*HaltError)) {
	w.mu.Lock()
	tooLate := w.phase == phaseSealing && h.Reason == ReasonStall || w.ended && h.Reason == ReasonAbandon
	if w.phase == phaseHalted || w.phase == phaseClosed || tooLate {
		w.mu.Unlock()
		return
	}
	w.phase = phaseHalted
	h.Time = w.o.Clock.Now()
	h.FirstSeq, h.LastSeq = w.Durable()+1, w.Accepted()
	var err error = h
	w.dead.Store(&err)
	close(w.halting)
	w.mu.Unlock()
	w.wakeAll()
	w.kick()
	if tell != nil {
		go tell(h)
	}
	if w.o.Synchronous || w.o.Manual {
		w.finish()
	}
}

// Close ends the run: what was submitted is committed, then last, then the log is sealed. It is idempotent. If ctx
// ends first, closing goes on in the background and Close returns ctx's error; a later Close waits again. On a halted
// run it waits for what can still be written, and returns the
// *HaltError; the run is left to the next boot.
func (w *Writer) Close(ctx context.Context, last *entry.Draft) error {
	w.mu.Lock()
	if w.phase == phaseOpen {
		w.phase = phaseClosing
		w.last = last
		closed := error(format.ErrClosed)
		w.dead.Store(&closed)
		for _, q := range w.queue {
			q.nudge()
		}
		w.parked = false
		w.mu.Unlock()
		w.kick()
		if w.o.Synchronous || w.o.Manual {
			w.finish()
		}
	} else {
		w.mu.Unlock()
	}
	select {
	case <-w.done:
		return w.closeErr
	default:
	}
	select {
	case <-w.done:
		return w.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish does the last things: it commits what can be committed and seals, or writes the halt record. Only the first
// call does anything.
func (w *Writer) finish() {
	w.lead.Lock()
	defer w.lead.Unlock()
	select {
	case <-w.done:
		return
	default:
	}
	w.drain()
	if w.failed == nil && !w.halted() {
		w.failed = w.seal()
	}
	if w.failed != nil && !w.halted() {
		w.lead.Unlock()
		w.halt(w.failed) // in synchronous mode this comes back here and finishes
		w.lead.Lock()
		select {
		case <-w.done:
			return
		default:
		}
	}
	if h, ok := w.Err().(*HaltError); ok {
		if w.failed == nil && w.o.Sync != SyncNever {
			w.failed = w.sync()
		}
		if !w.sealing {
			_ = w.log.Fail(h.record()) // best effort: the reason is also in the error
		}
		w.log.Abandon()
		w.closeErr = h
	}
	w.mu.Lock()
	w.phase = phaseClosed
	w.mu.Unlock()
	close(w.done)
	w.wakeAll()
}

// drain commits all that was accepted. It is called with lead held.
func (w *Writer) drain() {
	for {
		if more, err := w.step(); err != nil || !more {
			return
		}
	}
}

func (w *Writer) halted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase == phaseHalted
}

// seal ends a run that is being closed. Until everything is durable a stall can still halt it; then there is nothing
// to seal.
func (w *Writer) seal() error {
	w.mu.Lock()
	if w.ended = w.phase == phaseClosing; w.ended && w.last != nil {
		if _, err := w.put(w.last, w.log.Kinds()); err != nil {
			w.mu.Unlock()
			return err
		}
	}
	w.mu.Unlock()
	w.drain()
	if w.failed == nil && w.o.Sync == SyncInterval && w.unsynced() {
		w.commits.Add(1)
		w.failed = w.sync()
		w.commits.Add(1)
	}
	if w.failed != nil {
		return w.failed
	}
	w.mu.Lock()
	if w.phase != phaseClosing {
		w.mu.Unlock()
		return nil
	}
	w.phase = phaseSealing
	w.mu.Unlock()
	w.sealing = true
	return w.log.Seal(manifest.Ended)
}
