package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// Log is a run that is being written.
type Log struct {
	o Options

	// Owned by the writer.
	enc     segment.Encoder
	active  *openSeg
	limit   int64         // no batch may end behind it in the active segment
	synced  segment.Chain // after the last commit that a sync has covered
	failed  error         // sticky
	routes  routeTable
	maker   *spareMaker
	pace    pace
	ioFault bool // the failure was an I/O error, so the active file must not be touched

	kinds atomic.Pointer[entry.Kinds] // declared kinds; replaced under kindMu
	kmu   sync.Mutex                  // guards changes of kinds, and o.Manifest once the log exists

	retaining sync.Mutex // held by whoever removes or compresses segments, and by Seal while it writes the manifest
	over      bool       // the log was closed; guarded by retaining

	written Watermark
	durable Watermark

	set    atomic.Pointer[segSet]
	files  *files
	sealer *sealer
	packer *packer
	reader *Reader
}

// Create makes the run's folder, its first segment and its manifest, all durable, so that the folder's own name is
// the only thing left to sync. The run has no entries yet.
func Create(o Options) (*Log, error) {
	if err := o.resolve(); err != nil {
		return nil, err
	}
	l := &Log{o: o}
	kinds := &entry.Kinds{}
	for _, k := range o.Manifest.Kinds {
		var err error
		if kinds, _, err = kinds.With(k.Name); err != nil {
			return nil, err
		}
	}
	l.kinds.Store(kinds)
	l.o.Manifest.Kinds = kindList(kinds)
	l.o.Manifest.Status = manifest.Running
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, &format.Error{Path: o.Dir, Offset: -1, Why: "make the run's folder", Err: err}
	}
	if err := syncAncestors(o.FS, o.Dir); err != nil {
		return nil, &format.Error{Path: o.Dir, Offset: -1, Why: "sync the folders above", Err: err}
	}
	s := l.makeSpare(1, nil)
	if s.err != nil {
		return nil, s.err
	}
	if err := manifest.Write(o.FS, o.Dir, l.o.Manifest); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	l.files = newFiles(o.FS, o.Dir, maxOpenFiles, l.o.Warn)
	l.routes.init()
	l.synced = segment.FirstChain(o.Manifest.Run)
	l.use(&s, l.synced)
	l.sealer = newSealer(l)
	l.packer = newPacker(l)
	l.startSpare(1)
	return l, nil
}

// syncAncestors syncs every folder above dir: a process that was killed may have made one of them without, and a
// power cut would take it with all that is in it. A folder that may not be read is somebody else's, and older than we
// are.
func syncAncestors(fsys vfs.FS, dir string) error {
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if err := fsys.SyncDir(up); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func kindList(k *entry.Kinds) []manifest.KeyKind {
	var list []manifest.KeyKind
	for i, name := range k.Declared() {
		list = append(list, manifest.KeyKind{ID: uint32(entry.FirstUserKind) + uint32(i), Name: name})
	}
	return list
}

// use makes a spare the active segment.
func (l *Log) use(s *spare, prev segment.Chain) {
	before := l.active
	l.active = newOpenSeg(s.path, s.header, s.file, prev)
	if before != nil {
		l.active.ix.Reserve(before.keysIn(s.header.PlannedSize))
	}
	l.limit = s.header.PlannedSize - segment.TailReserve
	l.routes.generation++
	ref := &segRef{number: s.header.Number, path: s.path}
	ref.open.Store(l.active)
	for {
		old := l.set.Load()
		next := &segSet{floor: floor{1, 1}}
		if old != nil {
			next.floor = old.floor
			next.segs = append(next.segs, old.segs...)
		}
		next.segs = append(next.segs, ref)
		if l.set.CompareAndSwap(old, next) { // beside RemoveBefore
			return
		}
	}
}

// Bounds of what is reserved for the keys of a segment, which may come to hold few: its table takes at most about a tenth of
// the segment's size, and 32 MiB.
const (
	bytesPerKey  = 512
	keysReserved = 1 << 20
)

// keysIn guesses how many distinct keys a segment of so many bytes is going to have, if it is filled as this one was, and no more
// than room is to be made for at once.
func (o *openSeg) keysIn(size int64) int {
	perByte := float64(o.ix.Keys()) / float64(max(o.end.Load(), 1))
	return int(min(perByte*float64(size), float64(size/bytesPerKey), keysReserved))
}

// Kinds returns the key kinds declared so far.
func (l *Log) Kinds() *entry.Kinds { return l.kinds.Load() }

// DeclareKind declares a key kind. It is safe for concurrent use with everything. The kind becomes durable with the
// first entry that is submitted after it.
func (l *Log) DeclareKind(name string) (entry.KindNo, error) {
	l.kmu.Lock()
	defer l.kmu.Unlock()
	kinds, no, err := l.kinds.Load().With(name)
	if err == nil {
		l.kinds.Store(kinds)
	}
	return no, err
}

// Append writes items from to to-1 of b, and the notes that belong to them, as one batch, whole or absent, with seqs from
// firstSeq on, which must follow the last one. A batch may hold notes only. It does not sync, except when it rotates.
func (l *Log) Append(b *entry.Batch, from, to int, firstSeq uint64) error {
	if l.failed != nil {
		return l.failed
	}
	if firstSeq != l.active.chain.Seq+1 {
		return fmt.Errorf("%w: batch starts at seq %d, the log ends at %d", format.ErrInvalid, firstSeq, l.active.chain.Seq)
	}
	if i, j := b.NotesBetween(from, to); from >= to && i == j {
		return nil
	}
	if err := l.sealer.failure(); err != nil {
		return l.fail(err)
	}
	commit := l.encode(b, from, to)
	if commit.End() > l.limit {
		if err := l.rotate(); err != nil {
			return l.fail(err)
		}
		commit = l.encode(b, from, to) // one that is larger than a whole segment makes the file grow
	}
	if int(commit.Frames) > to-from { // not only entries
		return l.write(commit)
	}
	batch, err := l.store(commit)
	if err != nil {
		return err
	}
	l.active.ingestItems(batch, b, from, l.routes.offsets, l.routes.used)
	l.tell(commit)
	return nil
}

// encode builds the batch for the active segment; l.enc holds its bytes.
func (l *Log) encode(b *entry.Batch, from, to int) *segment.Commit {
	o := l.active
	l.enc.Begin(o.header.Salt, o.end.Load())
	l.routes.undo() // of an encoding that did not fit
	l.routes.offsets, l.routes.used = l.routes.offsets[:0], l.routes.used[:0]
	base := o.dict.BaseTime
	if !o.started {
		if base = l.o.Clock.Now(); from < to {
			base = b.At(from).TsPublish
		}
		l.encodeStart(base)
	}
	if o.started && l.kinds.Load() != o.dict.Kinds() {
		l.encodeKinds()
	}
	seq := o.chain.Seq
	note, notes := b.NotesBetween(from, to)
	for i := from; i < to; i++ {
		note = l.encodeNotes(b, note, notes, i)
		it := b.At(i)
		seq++
		no := l.route(&it)
		l.routes.offsets = append(l.routes.offsets, l.enc.Next())
		l.routes.used = append(l.routes.used, no)
		l.enc.Entry(seq, base, no, &it)
	}
	l.encodeNotes(b, note, notes, to)
	return l.commit(seq, 0, 0)
}

// encodeNotes writes the notes from note to before notes that stand in front of item i, and returns the next one.
func (l *Log) encodeNotes(b *entry.Batch, note, notes, i int) int {
	for ; note < notes; note++ {
		before, kind, body := b.NoteAt(note)
		if before > i {
			break
		}
		l.enc.Raw(uint8(kind), body)
	}
	return note
}

func (l *Log) encodeStart(base int64) {
	s := segment.Start{Prev: l.active.prev, BaseTime: base}
	if set := l.set.Load(); len(set.segs) > 1 {
		p := set.segs[len(set.segs)-2]
		if o := p.open.Load(); o != nil { // looked at once: the sealer takes it away
			s.PrevSalt = o.header.Salt
		} else if in := p.info.Load(); in != nil {
			s.PrevSalt = in.header.Salt
		}
	}
	l.enc.Start(s)
	l.encodeKinds()
}

// encodeKinds writes the declared kinds that the segment does not know yet.
func (l *Log) encodeKinds() {
	known := len(l.active.dict.Kinds().Declared())
	for i, name := range l.kinds.Load().Declared() {
		if i >= known {
			l.enc.KeyKind(entry.FirstUserKind+entry.KindNo(i), name)
		}
	}
}

// commit appends the commit frame.
func (l *Log) commit(lastSeq uint64, flags, nextSalt uint64) *segment.Commit {
	c := &l.routes.commit // reused, so that a commit does not allocate
	*c = segment.Commit{
		Ordinal: l.active.chain.Ordinal + 1, Durable: l.synced.Ordinal, FirstSeq: l.active.chain.Seq + 1, LastSeq: lastSeq,
		Flags: flags, NextSalt: nextSalt, Time: l.o.Clock.Now(),
	}
	l.routes.bytes = l.enc.Commit(c, l.active.chain.Value)
	return c
}

// writeOutBytes is the size from which a batch is worth a system call that lets the disk begin before the sync.
const writeOutBytes = 128 << 10

// write puts the encoded batch into the file and publishes it.
func (l *Log) write(c *segment.Commit) error {
	batch, err := l.store(c)
	if err != nil {
		return err
	}
	if err := l.active.ingest(batch); err != nil {
		return l.fail(err) // cannot be: what was just encoded does not decode
	}
	l.tell(c)
	return nil
}

// tell lets readers see a batch that is indexed.
func (l *Log) tell(c *segment.Commit) {
	l.written.publish(c.LastSeq)
	l.enc.Release(4 << 20)
}

// store puts the encoded batch into the file.
func (l *Log) store(c *segment.Commit) (*segment.Batch, error) {
	raw := l.routes.bytes
	if _, err := l.active.file.WriteAt(raw, c.BatchStart); err != nil {
		l.ioFault = true
		return nil, l.fail(&format.Error{Path: l.active.path, Offset: c.BatchStart, FirstSeq: c.FirstSeq, LastSeq: c.LastSeq, Why: "write", Err: err})
	}
	if len(raw) >= writeOutBytes {
		if err := l.active.file.WriteOut(c.BatchStart, int64(len(raw))); err != nil { // the disk works while this is indexed and the next batch encoded
			l.ioFault = true
			return nil, l.fail(&format.Error{Path: l.active.path, Offset: c.BatchStart, FirstSeq: c.FirstSeq, LastSeq: c.LastSeq, Why: "write out", Err: err})
		}
	}
	l.routes.accept()
	l.hurrySpare(len(raw), c.End())
	next := segment.Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: max(l.active.chain.Durable, c.Durable)}
	l.routes.batch = segment.Batch{Commit: *c, Next: next, Raw: raw[:len(raw)-segment.CommitSize]}
	return &l.routes.batch, nil
}

// rotate ends the active segment with a closing commit and goes on in the spare.
func (l *Log) rotate() error {
	s, err := l.takeSpare(l.active.header.Number)
	if err != nil {
		if !l.o.NoSync {
			_ = l.Sync() // nothing is wrong with what is written
		}
		return err
	}
	old := l.active
	if !l.o.NoSync && l.synced.Ordinal < old.chain.Ordinal {
		if err := l.datasync(); err != nil { // so that the closing commit vouches for all in front of it
			_ = s.file.Close()
			return err
		}
	}
	l.enc.Begin(old.header.Salt, old.end.Load())
	if !old.started {
		l.encodeStart(l.o.Clock.Now())
	}
	if err := l.write(l.commit(old.chain.Seq, segment.FlagContinues, s.header.Salt)); err != nil {
		_ = s.file.Close()
		return err
	}
	if !l.o.NoSync {
		if err := l.Sync(); err != nil {
			_ = s.file.Close()
			return err
		}
	}
	l.use(&s, old.chain)
	l.sealer.enqueue(old)
	l.startSpare(s.header.Number)
	return nil
}

// Sync makes everything appended so far durable. Nothing but the last commit may be without a later one that proves it once
// it counts as durable; so behind several commits it writes a sync mark, and syncs that too, before any of them does.
func (l *Log) Sync() error {
	if l.failed != nil {
		return l.failed
	}
	if l.synced.Ordinal == l.active.chain.Ordinal && l.durable.Load() == l.active.chain.Seq {
		return nil
	}
	several := l.behind()
	if err := l.datasync(); err != nil {
		return err
	}
	if l.o.NoSync {
		return nil // earlier segments may not be on the disk: Seal sees to them
	}
	if several {
		if err := l.mark(0); err != nil {
			return err
		}
		if err := l.datasync(); err != nil {
			return err
		}
	}
	l.active.durableEnd.Store(l.active.end.Load())
	l.durable.publish(l.active.chain.Seq)
	return nil
}

// behind reports whether several commits are not synced.
func (l *Log) behind() bool { return !l.o.NoSync && l.active.chain.Ordinal-l.synced.Ordinal > 1 }

// datasync syncs the active segment. What it covers does not count as durable yet.
func (l *Log) datasync() error {
	if err := l.active.file.Datasync(); err != nil {
		l.ioFault = true
		return l.fail(&format.Error{Path: l.active.path, Offset: -1, FirstSeq: l.durable.Load() + 1, LastSeq: l.active.chain.Seq, Why: "sync", Err: err})
	}
	if !l.o.NoSync {
		l.synced = l.active.chain
	}
	return nil
}

// Mark writes and syncs a sync mark, which proves that everything synced so far was durable. It does nothing if the last
// commit is one already.
func (l *Log) Mark() error {
	if l.failed != nil || l.active.last.Flags&segment.FlagMark != 0 || l.synced.Ordinal == 0 {
		return l.failed
	}
	if err := l.mark(0); err != nil {
		return err
	}
	return l.Sync()
}

func (l *Log) mark(flags uint64) error {
	o := l.active
	at := (o.end.Load() + segment.BlockSize - 1) / segment.BlockSize * segment.BlockSize
	if at+segment.CommitSize > l.limit+segment.TailReserve/4 && flags == 0 {
		if err := l.rotate(); err != nil {
			return l.fail(err)
		}
		o = l.active
		at = o.end.Load()
	}
	l.enc.Begin(o.header.Salt, o.end.Load())
	if !o.started {
		l.encodeStart(l.o.Clock.Now())
	}
	l.enc.PadTo(at)
	return l.write(l.commit(o.chain.Seq, flags|segment.FlagMark, 0))
}

// fail makes an error sticky.
func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.failed = err
	}
	return err
}

// Fail ends the log with a halt record: in the active segment, or in the spare if an I/O error has made the active
// file untouchable. It is best effort; the log refuses everything but Abandon afterwards.
func (l *Log) Fail(h manifest.Halt) error {
	body, err := manifest.EncodeHalt(h)
	if err != nil {
		return err
	}
	defer func() { _ = l.fail(format.ErrClosed) }()
	if !l.ioFault {
		l.enc.Begin(l.active.header.Salt, l.active.end.Load())
		if !l.active.started {
			l.encodeStart(l.o.Clock.Now())
		}
		l.enc.Raw(segment.KindHalt, body)
		l.failed = nil
		if err := l.write(l.commit(l.active.chain.Seq, segment.FlagHalt, 0)); err != nil {
			return err
		}
		return l.Sync()
	}
	m := l.maker
	if m == nil {
		return errors.New("there is no spare for the halt record")
	}
	select {
	case <-m.done:
	default:
		return errors.New("the spare for the halt record is not ready")
	}
	if m.result.err != nil {
		return m.result.err
	}
	return l.detachedHalt(&m.result, body)
}

// detachedHalt writes the halt record into the spare, as evidence beside the chain.
func (l *Log) detachedHalt(s *spare, body []byte) error {
	state := l.synced
	l.enc.Begin(s.header.Salt, s.header.Size)
	l.enc.Start(segment.Start{Prev: state, BaseTime: l.o.Clock.Now(), PrevSalt: l.active.header.Salt, Detached: true})
	l.enc.Raw(segment.KindHalt, body)
	c := segment.Commit{
		Ordinal: state.Ordinal + 1, Durable: state.Ordinal, FirstSeq: state.Seq + 1, LastSeq: state.Seq,
		Flags: segment.FlagHalt, Time: l.o.Clock.Now(),
	}
	raw := l.enc.Commit(&c, state.Value)
	if _, err := s.file.WriteAt(raw, c.BatchStart); err != nil {
		return err
	}
	return s.file.Datasync()
}

// Seal ends the run: final commit, footers, indexes, manifest. Everything is durable when it returns nil.
func (l *Log) Seal(status manifest.Status) error {
	if l.failed != nil {
		return l.failed
	}
	if !status.Sealed() {
		return fmt.Errorf("%w: cannot seal as %s", format.ErrInvalid, status)
	}
	l.packer.stop() // what is left takes a later pass
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.mark(segment.FlagFinal); err != nil {
		return err
	}
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.sealer.finish(l.active); err != nil {
		return l.fail(err)
	}
	if l.o.NoSync {
		l.durable.publish(l.active.chain.Seq) // each footer was written behind a sync of all its segment
	}
	if err := l.dropSpare(); err != nil {
		l.o.Warn(err)
	}
	l.packer.wait()
	l.retaining.Lock()
	defer l.retaining.Unlock()
	m, err := sealedManifest(l.files, l.set.Load(), l.o.Manifest, status)
	if err != nil {
		return l.fail(err)
	}
	m.Kinds = kindList(l.kinds.Load())
	if err := manifest.Write(l.o.FS, l.o.Dir, m); err != nil {
		return l.fail(err)
	}
	l.kmu.Lock()
	l.o.Manifest = m
	l.kmu.Unlock()
	_ = l.fail(format.ErrClosed)
	return nil
}

// sealedManifest fills in what is known when all segments have their footers.
func sealedManifest(fs *files, set *segSet, m manifest.Manifest, status manifest.Status) (manifest.Manifest, error) {
	m.Status = status
	m.Segments = set.segs[len(set.segs)-1].number
	m.Ended = m.BaseEnded
	for _, ref := range set.segs {
		in, err := fs.loadInfo(ref)
		if err != nil {
			return m, err
		}
		if in.footer.Entries > 0 && (m.Ended == nil || in.footer.MaxInit > *m.Ended) {
			ended := in.footer.MaxInit
			m.Ended = &ended
		}
		m.LastSeq = in.footer.LastSeq
		m.Digest = fmt.Sprintf("%x", in.footer.RunSHA)
		m.DroppedBytes += in.footer.Dropped
	}
	return m, nil
}

// Abandon stops the background work and closes the files without sealing, as after a halt. The next boot recovers the
// run. It waits until the background work has stopped, however long the disk takes: whoever holds the instance's lock
// must not let go of it before.
func (l *Log) Abandon() {
	_ = l.fail(format.ErrClosed)
	l.sealer.stop()
	l.packer.stop()
	l.Quiesce()
	if m := l.maker; m != nil && m.result.file != nil {
		_ = m.result.file.Close()
	}
	l.close()
}

// Quiesce ends what is left of the background work of an abandoned or sealed log, and returns when it has stopped, so
// that the folder can be removed.
func (l *Log) Quiesce() {
	if m := l.maker; m != nil {
		m.cancel()
	}
	l.sealer.wait()
	l.packer.stop()
	l.packer.wait()
}

// Close frees what reading needs, after Seal.
func (l *Log) Close() {
	l.close()
}

func (l *Log) close() {
	l.packer.stop()
	l.retaining.Lock()
	l.over = true
	l.retaining.Unlock()
	l.files.closeBehindTails(func() {
		for _, ref := range l.set.Load().segs {
			if o := ref.open.Load(); o != nil {
				o.refs.retire()
			}
		}
	})
	l.written.close()
	l.durable.close()
}

// Manifest returns the manifest as it is on disk, with the kinds declared since.
func (l *Log) Manifest() manifest.Manifest {
	l.kmu.Lock()
	m := l.o.Manifest
	l.kmu.Unlock()
	m.Kinds = kindList(l.kinds.Load())
	return m
}

// Written and Durable are the log's watermarks.
func (l *Log) Written() *Watermark { return &l.written }

// Durable is the last seq that a sync has covered.
func (l *Log) Durable() *Watermark { return &l.durable }

// Dir is the run's folder.
func (l *Log) Dir() string { return l.o.Dir }

// routeTable gives routes their numbers. It also carries what Append reuses between batches.
type routeTable struct {
	numbers    map[entry.Route]uint32
	names      []entry.Route
	definedIn  []uint32 // generation of the segment that defines the route
	generation uint32
	pending    []uint32 // defined by the batch that is being encoded

	lastName  []byte
	lastTopic int
	lastNo    uint32

	offsets []int64  // of the entries of the batch that is being encoded
	used    []uint32 // their routes

	commit segment.Commit
	batch  segment.Batch
	bytes  []byte
}

func (t *routeTable) init() {
	t.numbers = make(map[entry.Route]uint32)
	t.names = []entry.Route{{}}
	t.definedIn = []uint32{0}
}

// undo forgets the definitions of a batch that was encoded but not written.
func (t *routeTable) undo() {
	for _, no := range t.pending {
		t.definedIn[no] = 0
	}
	t.pending = t.pending[:0]
	t.lastNo = 0
}

func (t *routeTable) accept() { t.pending = t.pending[:0] }

// route returns the number of an item's route, defining it in the segment first if need be.
func (l *Log) route(it *entry.Item) uint32 {
	t := &l.routes
	if t.lastNo != 0 && it.TopicLen == t.lastTopic && bytes.Equal(it.Name, t.lastName) {
		return t.lastNo
	}
	text := unsafe.String(unsafe.SliceData(it.Name), len(it.Name)) // for the look-up only
	r := entry.Route{Topic: text[:it.TopicLen], Type: text[it.TopicLen:]}
	no, ok := t.numbers[r]
	if !ok {
		if len(t.names) >= maxRoutes {
			return 0
		}
		r = entry.Route{Topic: string(it.Name[:it.TopicLen]), Type: string(it.Name[it.TopicLen:])}
		no = uint32(len(t.names))
		t.numbers[r] = no
		t.names = append(t.names, r)
		t.definedIn = append(t.definedIn, 0)
	}
	if t.definedIn[no] != t.generation {
		l.enc.Route(no, t.names[no])
		t.definedIn[no] = t.generation
		t.pending = append(t.pending, no)
	}
	t.lastName, t.lastTopic, t.lastNo = append(t.lastName[:0], it.Name...), it.TopicLen, no
	return no
}
