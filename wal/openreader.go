package wal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// follower is what a reader of another process's run knows of segments without a footer.
type follower struct {
	mu      sync.Mutex // one at a time reads on
	set     atomic.Pointer[segSet]
	chain   segment.Chain
	written atomic.Uint64
	durable atomic.Uint64
	ended   atomic.Bool                  // nothing will follow
	kinds   atomic.Pointer[entry.Kinds]  // the longest list that manifest or segments declare: lists only grow
	damage  atomic.Pointer[format.Error] // what ends the log
	gap     *format.Error                // what is missing or damaged in front of its end
	torn    int64
	cut     atomic.Pointer[format.Error] // batches that this reader has shown and that recovery has cut off
	looked  time.Time                    // when recovered last looked; guarded by mu
}

// OpenReader opens a run's folder for reading: sealed, crashed or live. It takes no lock, writes nothing, and works
// on read-only media. Damage to the log does not stop it: scans deliver what is good and then the error, and Damage
// tells. ErrNotRun: the folder holds no run.
func OpenReader(fsys vfs.FS, dir string) (*Reader, error) {
	r := &Reader{fsys: fsys, dir: dir, status: manifest.Running}
	r.files = newFiles(fsys, dir, maxOpenFiles, r.warn)
	if err := r.open(); err != nil {
		r.files.closeAll()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	info, err := r.fsys.Stat(r.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &format.Error{Path: r.dir, Offset: -1, Why: "not a folder", Err: format.ErrNotRun}
	}
	for {
		err := r.openOnce()
		if err == nil && r.Damage() == nil || !r.floorMoved() {
			return err
		}
		_ = r.Close() // segments were missing that retention has removed meanwhile
		r.files.closeAll()
		r.files = newFiles(r.fsys, r.dir, maxOpenFiles, r.warn)
		r.ext, r.warnings = nil, nil
	}
}

func (r *Reader) openOnce() error {
	m, warning, merr := manifest.Read(r.fsys, r.dir)
	r.manifest = m
	if errors.Is(merr, format.ErrVersion) {
		return merr
	}
	if warning != nil {
		r.warn(warning)
	}
	runID := func(h *segment.Header) string {
		if merr != nil && m.Run == "" { // the first that is read speaks for all
			if id, err := manifest.DecodeIdentity("", 64, h.Identity); err == nil {
				m.Identity = id
			}
		}
		return m.Run
	}
	st, err := examineStable(r.fsys, r.dir, floorOf(&m), runID)
	if err != nil {
		if st != nil {
			st.close()
		}
		if errors.Is(err, format.ErrNotRun) && (merr == nil || ofContent(merr)) {
			return &format.Error{Path: filepath.Join(r.dir, segment.FileName(m.FirstSegment())), Offset: -1, FirstSeq: m.FirstSeq(), LastSeq: m.LastSeq,
				Why: "there is a manifest but no segment", Err: format.ErrMissingSegment}
		}
		return err
	}
	r.files.run = m.Run // from here on every segment has to be this run's
	if merr != nil {
		if m, err = r.rebuildManifest(st, m, merr); err != nil {
			st.close()
			return err
		}
	} else if warning != nil && !m.Status.Sealed() { // the copy that stands in is from before the end
		m = r.complete(st, m)
	}
	r.manifest, r.status = m, m.Status
	if _, quarantined, err := manifest.ReadQuarantine(r.fsys, r.dir); passing(err) { // it does not say that there is one
		st.close()
		return &format.Error{Path: filepath.Join(r.dir, manifest.QuarantineName), Offset: -1, Why: "whether the run is quarantined", Err: err}
	} else if quarantined {
		r.status = manifest.Quarantined
		if err != nil { // it counts, whatever it says
			r.warn(&format.Error{Path: filepath.Join(r.dir, manifest.QuarantineName), Offset: -1, Why: "read", Err: err})
		}
	}
	r.adopt(st)
	return nil
}

// examineStable examines a run beside which a writer may be at work. What looks like damage because the files changed
// in between does not look the same again.
func examineStable(fsys vfs.FS, dir string, from floor, runID func(h *segment.Header) string) (*state, error) {
	var before string
	for try := 0; ; try++ {
		st, err := examine(fsys, dir, from, runID)
		now := ""
		switch {
		case err != nil:
			now = err.Error()
		case st.verdict() != nil:
			now = st.verdict().Error()
		}
		if now == "" || now == before || try == 10 {
			return st, err
		}
		before = now
		if st != nil {
			st.close()
		}
	}
}

// adopt takes over what examine has found.
func (r *Reader) adopt(st *state) {
	f := &follower{chain: st.chain, gap: st.gap, torn: st.torn}
	f.set.Store(st.set)
	f.written.Store(st.chain.Seq)
	r.ext = f
	r.set = f.set.Load
	m := &r.manifest
	if d := st.damage; d != nil {
		if m.Status.Sealed() && m.LastSeq >= d.FirstSeq {
			d.LastSeq = m.LastSeq
		}
		f.damage.Store(d)
	} else if m.Status.Sealed() {
		r.checkSealed(st)
	}
	if m.Status.Sealed() {
		f.ended.Store(true)
	}
	if f.damage.Load() == nil && st.final {
		f.ended.Store(true)
	}
	r.proven(st.open)
	for _, o := range st.open {
		if _, ok := footerAt(o, o.end.Load()); ok { // written behind a sync of all before it, but the file is not cut yet
			f.durable.Store(max(f.durable.Load(), o.lastSeq.Load()))
		}
	}
	if !m.Status.Sealed() && st.final {
		m.DroppedBytes = st.dropped
	}
	f.learn(kindsOf(m.Kinds))
	for _, o := range st.open {
		f.learn(o.dict.Kinds())
	}
	if n := len(st.open); n == 0 && !m.Status.Sealed() || n > 0 && n < len(st.set.segs) && !st.open[n-1].started {
		f.learn(kindsOf(st.kinds(r.files))) // a fresh segment knows no kinds yet, nor a manifest that a crash kept from the end
	}
	m.Kinds = kindList(f.kinds.Load())
	if st.halt != nil && m.Halt == nil {
		m.Halt = st.halt
	}
}

// checkSealed compares a sealed run's end with its manifest: here a tail that does not validate is damage, never torn.
func (r *Reader) checkSealed(st *state) {
	m := &r.manifest
	switch {
	case st.chain.Seq < m.LastSeq || st.torn > 0 && st.chain.Seq == m.LastSeq && len(st.open) > 0 && !st.final:
		at := &format.Error{Path: r.dir, Offset: -1, FirstSeq: st.chain.Seq + 1, LastSeq: m.LastSeq, Err: format.ErrCorrupt,
			Why: fmt.Sprintf("the run was sealed at seq %d", m.LastSeq)}
		if n := len(st.open); n > 0 {
			at.Path, at.Offset = st.open[n-1].path, st.open[n-1].end.Load()
		} else if n := len(st.set.segs); n > 0 {
			at.Path = st.set.segs[n-1].path
		}
		if st.chain.Seq == m.LastSeq { // only the footer is gone
			at.FirstSeq, at.LastSeq, at.Why = 0, 0, "the footer is damaged; all entries are there"
			r.warn(at)
			return
		}
		r.ext.damage.Store(at)
	case len(st.open) > 0:
		o := st.open[len(st.open)-1]
		r.warn(&format.Error{Path: o.path, Offset: o.end.Load(), Why: "the footer is missing; all entries are there", Err: format.ErrCorrupt})
	}
}

// learn takes a list of key kinds that knows more than the one before.
func (f *follower) learn(k *entry.Kinds) {
	if old := f.kinds.Load(); old == nil || len(k.Declared()) > len(old.Declared()) {
		f.kinds.Store(k)
	}
}

func openSegs(set *segSet) (open []*openSeg) {
	for _, ref := range set.segs {
		if o := ref.open.Load(); o != nil {
			open = append(open, o)
		}
	}
	return open
}

// proven moves the durable mark: a sealed run or segment is durable to its end, others as far as a later commit says.
func (r *Reader) proven(open []*openSeg) {
	f := r.ext
	durable := f.chain.Seq
	if f.ended.Load() {
		for _, o := range open {
			o.durableEnd.Store(o.end.Load())
		}
	} else {
	search:
		for _, o := range open {
			for _, p := range o.pending {
				if p.before.Ordinal >= f.chain.Durable {
					durable = p.before.Seq
					o.durableEnd.Store(max(o.durableEnd.Load(), p.from))
					break search
				}
			}
			o.durableEnd.Store(o.end.Load())
		}
	}
	f.durable.Store(max(f.durable.Load(), durable))
}

// rebuildManifest makes what can be made of the segments.
func (r *Reader) rebuildManifest(st *state, m manifest.Manifest, cause error) (manifest.Manifest, error) {
	if m.Run == "" {
		id, err := anyIdentity(r.fsys, st.set)
		if err != nil {
			return m, errors.Join(cause, err)
		}
		m.Identity = id
		r.files.run = m.Run
	}
	r.warn(&format.Error{Path: filepath.Join(r.dir, manifest.FileName), Offset: -1, Why: "manifest is rebuilt from the segments, in memory", Err: cause})
	m.Status = manifest.Running
	return r.complete(st, m), nil
}

// complete puts what the segments know about the run's end into a manifest that does not know it.
func (r *Reader) complete(st *state, m manifest.Manifest) manifest.Manifest {
	if len(st.open) > 0 || !st.final {
		if st.halt != nil {
			m.Halt = st.halt
		}
		return m
	}
	status, err := st.howEnded(r.files)
	if err != nil {
		return m // the damage will be met, and told, by whoever reads there
	}
	if full, err := sealedManifest(r.files, st.set, m, status); err == nil {
		m = full
	}
	if kinds := st.kinds(r.files); len(kinds) > len(m.Kinds) {
		m.Kinds = kinds
	}
	return m
}

// Live reports whether more may come: the run is not sealed and no reader has seen its end. Whether its process
// lives, only the instance's lock can tell.
func (r *Reader) Live() bool {
	if r.log != nil {
		return !r.log.written.shutdown()
	}
	return !r.ext.ended.Load() && r.Damage() == nil
}

// DroppedBytes counts the bytes of a torn tail: behind the last whole batch of an unsealed run, or cut off when the
// run was recovered.
func (r *Reader) DroppedBytes() int64 {
	if r.ext != nil && r.ext.torn > 0 {
		return r.ext.torn
	}
	return r.Manifest().DroppedBytes
}

// Close lets go of all files. Views and iterators must not be used any more. The reader of a Log is closed with it.
func (r *Reader) Close() error {
	if r.log != nil || r.ext == nil {
		return nil
	}
	for _, ref := range r.ext.set.Load().segs {
		if o := ref.open.Load(); o != nil {
			o.refs.retire()
		}
		if l := ref.lost.Load(); l != nil {
			l.retire()
		}
	}
	r.files.closeAll()
	return nil
}

// refresh reads on in a run that another process writes.
func (r *Reader) refresh() error {
	f := r.ext
	if f == nil || f.ended.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if err := r.Damage(); err != nil {
			return err
		}
		set := f.set.Load()
		ref := set.segs[len(set.segs)-1]
		o := ref.open.Load()
		if o == nil { // sealed, and it continued: wait for the next file
			in, err := r.files.loadInfo(ref)
			if err != nil {
				return r.unlessRemoved(ref.number, err)
			}
			if !in.footer.Continues() {
				f.ended.Store(true)
				return nil
			}
			if more, err := r.follow(set, in.footer.State(), in.footer.NextSalt); !more || err != nil {
				return err
			}
			continue
		}
		stop, err := o.advance(0)
		if err != nil {
			return err
		}
		f.chain = o.chain
		f.written.Store(o.chain.Seq)
		f.learn(o.dict.Kinds())
		r.proven(openSegs(f.set.Load()))
		if !o.complete() {
			size, err := o.file.Size() // only what has its footer is shorter than planned
			r.recovered(stop.Footer || err == nil && size < o.header.PlannedSize)
			return r.damage()
		}
		if o.last.Flags&segment.FlagFinal != 0 {
			f.ended.Store(true)
			r.proven(openSegs(f.set.Load()))
			return nil
		}
		r.retireSealed(set)
		more, err := r.follow(set, o.chain, o.last.NextSalt)
		if err != nil {
			if r.recovered(true); f.ended.Load() {
				return nil // the last commit, which names the next segment, is among what was cut off
			}
		}
		if !more || err != nil {
			return err
		}
	}
}

// lookAgain is how long a reader waits for news before it asks whether somebody else has ended the run.
const lookAgain = 50 * time.Millisecond

// recovered notices that a later boot has ended the run: behind the last batch, so that nothing will follow, or before
// it, since what this reader has seen there was only in the page cache. It is called with mu held.
func (r *Reader) recovered(hurry bool) {
	f := r.ext
	if now := time.Now(); hurry || now.Sub(f.looked) >= lookAgain {
		f.looked = now
		if q, quarantined, err := manifest.ReadQuarantine(r.fsys, r.dir); quarantined && !passing(err) {
			r.quarantined(&q)
			return
		}
		for _, o := range openSegs(f.set.Load()) {
			in, err := r.sealedMeanwhile(o)
			if err != nil || in.footer.ContentEnd > o.end.Load() { // its writer has gone on, and ended, since this reader has read
				return
			}
			if !in.footer.Continues() {
				f.endAt(o, &in.footer)
				return
			}
		}
	}
}

// quarantined takes over the verdict of a later boot: nothing will follow.
func (r *Reader) quarantined(q *manifest.Quarantine) {
	at := &format.Error{Path: filepath.Join(r.dir, manifest.QuarantineName), Offset: -1, FirstSeq: q.FirstSeq, LastSeq: q.LastSeq,
		Why: q.Reason, Err: errors.Join(format.ErrQuarantined, format.ErrCorrupt)}
	if q.File != "" {
		at.Path, at.Offset = filepath.Join(r.dir, q.File), q.Offset
	}
	r.ext.damage.Store(at)
	r.mu.Lock()
	r.status = manifest.Quarantined
	r.mu.Unlock()
}

// sealedMeanwhile reads the footer of a segment that had none: in the file that is being read, or in the sealed copy
// that recovery has put in its place.
func (r *Reader) sealedMeanwhile(o *openSeg) (*sealedInfo, error) {
	in, err := readInfo(o.file, o.path)
	if err == nil {
		return in, nil
	}
	ref := &segRef{number: o.header.Number, path: o.path}
	if in, err = infoOf(r.fsys, ref, func(*segment.Header) string { return r.files.run }); err == nil && in.header.Salt != o.header.Salt {
		err = format.ErrCorrupt
	}
	return in, err
}

// endAt takes note of the footer that ends the run in segment o.
func (f *follower) endAt(o *openSeg, ft *segment.Footer) {
	if ft.LastSeq < f.chain.Seq {
		f.cut.Store(&format.Error{Path: o.path, Offset: ft.ContentEnd, FirstSeq: ft.LastSeq + 1, LastSeq: f.chain.Seq, Err: format.ErrTorn,
			Why: "recovery has cut off what was written but never durable"})
	}
	f.written.Store(ft.LastSeq)
	f.durable.Store(ft.LastSeq)
	o.durableEnd.Store(ft.ContentEnd)
	f.ended.Store(true)
}

// explain puts the reason in the place of an error about bytes that recovery has cut off under the reader.
func (r *Reader) explain(err error) error {
	f := r.ext
	if f == nil || !errors.Is(err, format.ErrCorrupt) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended.Load() {
		r.recovered(true)
	}
	cut, at := f.cut.Load(), (*format.Error)(nil)
	if cut != nil && errors.As(err, &at) && (at.FirstSeq >= cut.FirstSeq || at.Path == cut.Path && at.Offset >= cut.Offset) {
		return cut
	}
	return err
}

// follow opens the next segment, if its file is there.
func (r *Reader) follow(set *segSet, chain segment.Chain, salt uint64) (bool, error) {
	n := set.segs[len(set.segs)-1].number + 1
	path := filepath.Join(r.dir, segment.FileName(n))
	file, err := compressed.OpenSegment(r.fsys, path) // it may have been compressed since it was named
	if errors.Is(err, errNotExist) {
		err = &format.Error{Path: path, Offset: -1, FirstSeq: chain.Seq + 1, Why: "the segment is not there", Err: format.ErrMissingSegment}
		return false, r.unlessRemoved(n, err)
	}
	if err != nil {
		return false, err
	}
	h, err := segment.ReadHeader(file, path)
	if err == nil && h.Salt != salt {
		err = &format.Error{Path: path, Offset: 16, FirstSeq: chain.Seq + 1, Why: "not the segment that the one before names", Err: format.ErrMissingSegment}
	}
	if err != nil {
		_ = file.Close()
		return false, err
	}
	ref := &segRef{number: n, path: path}
	ref.open.Store(newOpenSeg(file.Name(), h, file, chain))
	for {
		set = r.ext.set.Load()
		next := &segSet{segs: append(append([]*segRef(nil), set.segs...), ref), floor: set.floor}
		if r.ext.set.CompareAndSwap(set, next) { // beside raise
			break
		}
	}
	if m, _, err := manifest.Read(r.fsys, r.dir); err == nil && m.FirstSegment() > set.floor.segment {
		r.raise(&m) // so that what a long-lived reader holds does not grow
	}
	return true, nil
}

// retireSealed goes over to the sealed files, so that memory does not grow with the log.
func (r *Reader) retireSealed(set *segSet) {
	for _, ref := range set.segs[:len(set.segs)-1] {
		o := ref.open.Load()
		if o == nil {
			continue
		}
		if in, err := infoOf(r.fsys, ref, func(*segment.Header) string { return r.files.run }); err == nil && in.footer.ContentEnd == o.end.Load() {
			ref.open.Store(nil)
			o.refs.retire()
		}
	}
}

// TailOptions say how to follow a run.
type TailOptions struct {
	From  uint64        // first seq; 0: the first that is there
	Level Level         // DefaultLevel: what the reader sees by default
	Poll  time.Duration // how often another process's files are looked at; 0: 1 ms
}

// Tail returns the entries from o.From on and waits for more, until the run has ended (then it just ends), ctx is
// done (its error comes last), or something is damaged. It is gap-free across rotation and sealing, and comes to the end also
// when the run is closed before it has got there: what it reads stays open until then. A view is valid
// until the next step. Entries that retention has removed before the tail came to them are ErrRemoved. Outside of the writer's process, what a tail has returned at level Written may turn out never to
// have reached the disk; when a later boot has cut it off the tail ends with an error that wraps ErrTorn and names the
// seqs.
func (r *Reader) Tail(ctx context.Context, o TailOptions) iter.Seq2[entry.View, error] {
	if o.Poll <= 0 {
		o.Poll = time.Millisecond
	}
	return func(yield func(entry.View, error) bool) {
		if !r.files.enter() {
			yield(entry.View{}, format.ErrClosed)
			return
		}
		defer r.files.leave()
		next, seen := o.From, uint64(0)
		for {
			ended := !r.Live() // asked first: what it vouches for is then already visible
			stopped := false
			err := r.scan(ScanOptions{From: next, Level: o.Level}, func(v entry.View) bool {
				seen, next = v.Seq(), v.Seq()+1
				stopped = !yield(v, nil)
				return !stopped && ctx.Err() == nil
			})
			if stopped {
				return
			}
			if next == 0 {
				next = r.FirstSeq()
			}
			if err == nil {
				err = ctx.Err()
			}
			if err == nil && !ended {
				err = r.wait(ctx, next-1, o)
			}
			if err != nil {
				yield(entry.View{}, err)
				return
			}
			if ended && next > r.last(o.Level) {
				if r.ext != nil {
					if cut := r.ext.cut.Load(); cut != nil && seen >= cut.FirstSeq {
						yield(entry.View{}, cut)
					}
				}
				return
			}
		}
	}
}

// wait blocks until something above seq may be visible or nothing will come any more.
func (r *Reader) wait(ctx context.Context, seq uint64, o TailOptions) error {
	if r.log != nil {
		w := &r.log.durable
		if o.Level == Written {
			w = &r.log.written
		}
		return w.waitPast(ctx, seq)
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if err := r.refresh(); err != nil {
			return err
		}
		if r.last(o.Level) > seq || !r.Live() {
			return nil
		}
		t.Reset(o.Poll)
	}
}
