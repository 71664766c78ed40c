package wal

import (
	"errors"
	"io"
	"path/filepath"
	"sync"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// sealer gives finished segments their footers and indexes, in order, behind the writer's back.
type sealer struct {
	l *Log

	mu      sync.Mutex
	cond    sync.Cond
	queue   []*openSeg
	busy    bool
	stopped bool
	err     error    // sticky: a segment's file could not be written
	prevSHA [32]byte // of the last sealed segment
}

func newSealer(l *Log) *sealer {
	s := &sealer{l: l}
	s.cond.L = &s.mu
	return s
}

// failure is the error that ended sealing, if any.
func (s *sealer) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// enqueue hands a finished segment over. It returns at once, unless the log works inline.
func (s *sealer) enqueue(o *openSeg) {
	s.mu.Lock()
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	if s.l.o.Inline {
		s.run()
	} else {
		s.l.o.Background(s.run)
	}
}

// run seals until the queue is empty, unless somebody is doing that.
func (s *sealer) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return
	}
	s.busy = true
	for len(s.queue) > 0 && !s.stopped && s.err == nil {
		o := s.queue[0]
		s.queue[0] = nil // the array lives on, the segment's index in memory must not
		s.queue = s.queue[1:]
		prev := s.prevSHA
		s.mu.Unlock()
		sha, err := s.l.seal(o, prev)
		s.mu.Lock()
		s.prevSHA = sha
		if err != nil && !s.stopped {
			s.err = err
		}
	}
	s.busy = false
	s.cond.Broadcast()
}

// wait returns when nothing is being sealed.
func (s *sealer) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy {
		s.cond.Wait()
	}
}

// finish seals the last segment, and all before it.
func (s *sealer) finish(o *openSeg) error {
	s.mu.Lock()
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	s.run() // what the background has begun goes on there, this one included
	s.wait()
	return s.failure()
}

// stop lets no further segment be sealed; one that is being sealed is left to end by itself.
func (s *sealer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// seal seals one segment of a log that is being written.
func (l *Log) seal(o *openSeg, prevSHA [32]byte) ([32]byte, error) {
	if !o.refs.acquire() {
		return prevSHA, format.ErrClosed
	}
	defer o.refs.release()
	ft, err := sealSegment(o, prevSHA, 0, 0)
	if err != nil {
		return prevSHA, err
	}
	ref := l.set.Load().byNumber(o.header.Number)
	if err := publishSealed(l.o.FS, l.o.Dir, ref, o, ft); err != nil {
		l.o.Warn(err) // the log is whole; readers build what is missing in memory
	}
	buildFilters(l.o.FS, l.o.Dir, l.files, l.set.Load(), o.header.Number, l.o.Warn)
	l.packer.sealed(o.header.Number)
	return ft.RunSHA, nil
}

// publishSealed writes the index and lets readers go over to the sealed file.
func publishSealed(fsys vfs.FS, dir string, ref *segRef, o *openSeg, ft segment.Footer) error {
	err := writeIndex(fsys, dir, o, &ft)
	ref.info.Store(&sealedInfo{header: o.header, footer: ft})
	ref.open.Store(nil)
	o.refs.retire()
	return err
}

func writeIndex(fsys vfs.FS, dir string, o *openSeg, ft *segment.Footer) error {
	path := filepath.Join(dir, index.FileName(o.header.Number))
	data, err := o.indexBytes(ft)
	if err == nil {
		err = index.Write(fsys, dir, index.FileName(o.header.Number), data)
	}
	if err != nil {
		return &format.Error{Path: path, Offset: -1, Why: "index was not written", Err: err}
	}
	return nil
}

// encoded is the content of an index file, as soon as it is done.
type encoded struct {
	data []byte
	err  error
	done sync.WaitGroup
}

// encodeIndex begins to make the content of the index file, beside what is done to the segment until it is written. Nothing may be
// ingested any more.
func (o *openSeg) encodeIndex() {
	e := &encoded{}
	want := index.Want{Salt: o.header.Salt, Number: o.header.Number, Chain: o.chain.Value, ContentEnd: o.end.Load()}
	e.done.Go(func() { e.data, e.err = index.Encode(o.ix, o.dict, want) })
	o.encoded = e
}

// indexBytes is the content of the index file.
func (o *openSeg) indexBytes(ft *segment.Footer) ([]byte, error) {
	if e := o.encoded; e != nil {
		o.encoded = nil
		e.done.Wait()
		return e.data, e.err
	}
	return index.Encode(o.ix, o.dict, indexWant(&o.header, ft))
}

// settle waits for an encoding that an error has left to itself.
func (o *openSeg) settle() {
	if o.encoded != nil {
		o.encoded.done.Wait()
	}
}

// sealSegment writes the footer behind the last commit and cuts the file there. Bytes behind the last commit are gone
// then; dropped says how many of them recovery counted as a torn tail.
func sealSegment(o *openSeg, prevSHA [32]byte, flags uint64, dropped int64) (ft segment.Footer, err error) {
	end := o.end.Load()
	ft = segment.Footer{
		Entries: o.stats.entries, FirstSeq: o.firstSeq, LastSeq: o.chain.Seq, LastOrdinal: o.chain.Ordinal, Chain: o.chain.Value,
		ContentEnd: end, MinInit: o.stats.minInit, MaxInit: o.stats.maxInit, MinPublish: o.stats.minPublish, MaxPublish: o.stats.maxPublish,
		Dropped: dropped, Flags: flags,
	}
	switch {
	case o.started && o.last.Flags&segment.FlagContinues != 0:
		ft.Flags |= segment.FlagContinues
		ft.NextSalt = o.last.NextSalt
	default:
		ft.Flags |= segment.FlagFinal
	}
	if ft.ContentSHA, err = o.contentSHA(end); err != nil {
		return ft, &format.Error{Path: o.path, Offset: -1, Why: "read for the digest", Err: err}
	}
	ft.RunSHA = segment.RunSHA(prevSHA, o.header.Number, ft.ContentSHA)
	if err := o.file.Datasync(); err != nil { // the footer says that all before it is durable; under SyncNever nobody has synced it
		return ft, &format.Error{Path: o.path, Offset: -1, FirstSeq: o.firstSeq, LastSeq: o.chain.Seq, Why: "sync before the footer", Err: err}
	}
	if err := writeFooter(o.file, &ft, o.header.Salt); err != nil {
		return ft, &format.Error{Path: o.path, Offset: end, Why: "write the footer", Err: err}
	}
	return ft, nil
}

// writeFooter makes the footer durable before it cuts the file behind it, and then the cut.
func writeFooter(f vfs.File, ft *segment.Footer, salt uint64) error {
	if _, err := f.WriteAt(segment.EncodeFooter(ft, salt), ft.ContentEnd); err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	if err := f.Truncate(ft.ContentEnd + segment.FooterSize); err != nil {
		return err
	}
	return f.Datasync()
}

// contentSHA is the digest of all up to end: the one that was made on the way, or made now.
func (o *openSeg) contentSHA(end int64) ([32]byte, error) {
	if sum, ok := o.digest.sum(end); ok {
		return sum, nil
	}
	return contentSHA(o.file, end)
}

func contentSHA(f io.ReaderAt, end int64) (sum [32]byte, err error) {
	h := segment.NewContentHash()
	buf := make([]byte, min(windowSize, end))
	for off := int64(0); off < end; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
			return sum, err
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

// buildFilters writes the filters that have become due now that segment n is sealed. They only save time, so trouble
// is reported, not returned.
func buildFilters(fsys vfs.FS, dir string, fs *files, set *segSet, n uint32, warn func(error)) {
	for _, r := range index.Due(n) {
		buildFilter(fsys, dir, fs, set, r, warn)
	}
}

func buildFilter(fsys vfs.FS, dir string, fs *files, set *segSet, r index.Range, warn func(error)) {
	var pinned []*mapped
	var srcs []*index.File
	for i := r.First; i <= r.Last; i++ {
		ref := set.byNumber(i)
		if ref == nil || ref.open.Load() != nil {
			break
		}
		m, err := fs.pinSegment(ref)
		if err != nil {
			break
		}
		pinned = append(pinned, m)
		if f, ok := m.index().(*fileIndex); ok {
			srcs = append(srcs, f.File)
		}
	}
	if len(srcs) == int(r.Last-r.First+1) {
		if err := index.BuildFilter(fsys, dir, r.First, r.Last, srcs); err != nil {
			warn(&format.Error{Path: filepath.Join(dir, index.FilterName(r.First, r.Last)), Offset: -1, Why: "filter was not written", Err: err})
		}
	}
	for _, m := range pinned {
		fs.unpin(m)
	}
}
