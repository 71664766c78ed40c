package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// segRef is a segment as readers know it. While open is set the segment is read through it; afterwards from the
// sealed file.
type segRef struct {
	number uint32
	path   string
	gone   bool // no file has this number; it stands for all that are missing up to the next one
	open   atomic.Pointer[openSeg]
	info   atomic.Pointer[sealedInfo]    // loaded when first needed
	lost   atomic.Pointer[lostSeg]       // the verdict, once it is known that it cannot be read to its end
	edge   atomic.Pointer[[2]uint64]     // see edges
	held   place                         // the sealed segment in memory
	flt    atomic.Pointer[[]filterPlace] // see filterPlace
}

// filterPlace is where a filter is found whose range ends with a segment.
type filterPlace struct {
	held  place
	salts atomic.Uint64 // what the salts of its segments make, once it has been loaded; 0: not known
}

// filterPlace returns the place of the filter over a range that ends with this segment.
func (ref *segRef) filterPlace(rg index.Range) *filterPlace {
	list := ref.flt.Load()
	if list == nil {
		made := make([]filterPlace, len(index.Due(rg.Last)))
		ref.flt.CompareAndSwap(nil, &made)
		list = ref.flt.Load()
	}
	return &(*list)[rg.Level()-1]
}

// sealedInfo is what is remembered of a sealed segment: small, so that a long run costs little.
type sealedInfo struct {
	header segment.Header
	footer segment.Footer
}

// segSet is an immutable list of a run's segments in order, from its floor on.
type segSet struct {
	segs  []*segRef
	floor floor
}

func (s *segSet) first() uint32 {
	if len(s.segs) == 0 {
		return max(s.floor.segment, 1)
	}
	return s.segs[0].number
}

// byNumber returns segment n, or what stands for it if it is missing.
func (s *segSet) byNumber(n uint32) *segRef {
	if i := s.index(n); i >= 0 && (s.segs[i].gone || s.segs[i].number == n) {
		return s.segs[i]
	}
	return nil
}

// index is the place of the last segment whose number is n or less, -1 if there is none.
func (s *segSet) index(n uint32) int {
	if i := int(n) - int(s.first()); i >= 0 && i < len(s.segs) && s.segs[i].number == n {
		return i
	}
	return sort.Search(len(s.segs), func(i int) bool { return s.segs[i].number > n }) - 1
}

// mapped is a sealed segment, or a filter, in memory.
type mapped struct {
	// What each use looks at comes first, in two cache lines.
	owner  *files
	users  atomic.Int32 // pins, and the table of files while m is in it; 0: closed
	used   atomic.Bool  // since the hand of the clock came by
	filter *index.Filter
	ix     atomic.Pointer[segIndex] // replaced when the file turns out to be damaged
	info   *sealedInfo
	salt   uint64
	packed *compressed.File
	bytes  []byte // the segment's content, footer excluded; nil: it is compressed
	path   string

	key    string
	place  *place
	in     *ring // where it is kept, as number at; nil: it is not. Guarded by owner.mu
	at     int
	once   sync.Once
	err    error
	data   vfs.Mapping
	blocks *blockCache
	file   *index.File
	fixMu  sync.Mutex
	fix    func(cause error) (segIndex, error)
}

func (m *mapped) close() {
	if m.packed != nil {
		m.blocks.forget(m)
		_ = m.packed.Close()
	}
	if m.data != nil {
		_ = m.data.Close()
	}
	if m.file != nil {
		_ = m.file.Close()
	}
	if m.filter != nil {
		_ = m.filter.Close()
	}
}

func newFiles(fsys vfs.FS, dir string, keep int, warn func(error)) *files {
	return &files{fsys: fsys, dir: dir, keep: keep, budget: processMaps, warn: warn, byKey: make(map[string]*mapped),
		blocks: newBlockCache(blockCacheBytes)}
}

// loadInfo returns a sealed segment's header and footer. If the footer does not validate, the error wraps ErrCorrupt.
func (fs *files) loadInfo(ref *segRef) (*sealedInfo, error) {
	if in := ref.info.Load(); in != nil {
		return in, nil
	}
	f, err := compressed.OpenSegment(fs.fsys, ref.path)
	if err != nil {
		return nil, missing(ref.path, err)
	}
	defer f.Close()
	in, err := readInfo(f, f.Name())
	if err != nil {
		return nil, err
	}
	if err := belongs(&in.header, ref, fs.run); err != nil {
		return nil, err
	}
	ref.info.Store(in)
	return in, nil
}

// belongs checks that a header is the one of segment ref of the run: whole files may have been swapped, renamed or
// copied.
func belongs(h *segment.Header, ref *segRef, run string) error {
	if h.Number != ref.number {
		return &format.Error{Path: ref.path, Offset: 32, Why: fmt.Sprintf("the header says segment %d", h.Number), Err: format.ErrCorrupt}
	}
	if run == "" {
		return nil
	}
	id, err := manifest.DecodeIdentity(ref.path, 64, h.Identity)
	if err == nil && id.Run != run {
		err = &format.Error{Path: ref.path, Offset: 64, Why: fmt.Sprintf("the segment belongs to run %.40s", id.Run), Err: format.ErrCorrupt}
	}
	return err
}

func readInfo(f vfs.File, path string) (*sealedInfo, error) {
	h, err := segment.ReadHeader(f, path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	ft, ok, err := segment.ReadFooter(f, size, &h)
	if err != nil {
		return nil, locate(err, path)
	}
	if !ok {
		return nil, &format.Error{Path: path, Offset: max(size-segment.FooterSize, 0), Why: "no valid footer", Err: format.ErrCorrupt}
	}
	return &sealedInfo{header: h, footer: ft}, nil
}

func missing(path string, err error) error {
	if errors.Is(err, errNotExist) {
		return &format.Error{Path: path, Offset: -1, Why: "the segment is not there", Err: format.ErrMissingSegment}
	}
	return &format.Error{Path: path, Offset: -1, Why: "open", Err: err}
}

// pinSegment maps a sealed segment and its index. The caller unpins.
func (fs *files) pinSegment(ref *segRef) (*mapped, error) {
	if m := fs.held(&ref.held); m != nil {
		return m, nil
	}
	return fs.pin(ref.path, &ref.held, func(m *mapped) error { return fs.loadSegment(ref, m) })
}

func (fs *files) loadSegment(ref *segRef, m *mapped) error {
	in, err := fs.loadInfo(ref)
	if err != nil {
		return err
	}
	f, err := compressed.OpenSegment(fs.fsys, ref.path)
	if err != nil {
		return missing(ref.path, err)
	}
	m.path, m.salt, m.info = f.Name(), in.header.Salt, in
	if err := m.take(f, fs.blocks); err != nil {
		return err
	}
	path := filepath.Join(fs.dir, index.FileName(ref.number))
	m.fix = func(cause error) (segIndex, error) {
		fs.warn(&format.Error{Path: path, Offset: -1, Why: "the index is built again in memory", Err: cause})
		o, err := rebuild(fs.fsys, ref.path, in)
		if err != nil && (!ofContent(err) || errors.Is(err, format.ErrMissingSegment)) { // gone since it was mapped: the caller asks why
			return nil, err
		}
		if o == nil { // nothing of it can be read in order
			return &memIndex{Builder: index.NewBuilder(in.footer.FirstSeq), dict: entry.NewDict(0), last: in.footer.FirstSeq - 1, rest: err, noted: err}, nil
		}
		ix := &memIndex{Builder: o.ix, dict: o.dict, last: o.chain.Seq, rest: err, noted: err}
		if end := o.end.Load(); err == nil && end != in.footer.ContentEnd { // no entry is there, but there may be notes
			ix.noted = &format.Error{Path: ref.path, Offset: end, Why: "what stands behind the last entry does not validate", Err: format.ErrCorrupt}
		}
		return ix, nil
	}
	m.file, err = index.Open(fs.fsys, path, indexWant(&in.header, &in.footer))
	if err != nil {
		_, err = m.rebuildIndex(nil, err)
		return err
	}
	m.setIndex(&fileIndex{File: m.file})
	return nil
}

// take maps the segment's file, or keeps it open if it is compressed.
func (m *mapped) take(f vfs.File, blocks *blockCache) error {
	size, err := f.Size()
	if err == nil && size < m.info.footer.ContentEnd {
		err = &format.Error{Path: m.path, Offset: size, Why: "the file was cut short", Err: format.ErrCorrupt}
	}
	if z, ok := f.(*compressed.File); ok && err == nil {
		if _, end := z.Bounds(); end == m.info.footer.ContentEnd {
			m.packed, m.blocks = z, blocks
			return nil
		}
		err = &format.Error{Path: m.path, Offset: 0, Why: "not the file whose footer was read", Err: format.ErrCorrupt}
	}
	defer f.Close()
	if err != nil {
		return err
	}
	if m.data, err = f.Map(m.info.footer.ContentEnd); err != nil {
		return &format.Error{Path: m.path, Offset: -1, Why: "map", Err: err}
	}
	m.bytes = m.data.Bytes()
	return nil
}

func (m *mapped) index() segIndex { return *m.ix.Load() }

func (m *mapped) setIndex(ix segIndex) { m.ix.Store(&ix) }

// rebuildIndex replaces an index whose use has failed, once.
func (m *mapped) rebuildIndex(used segIndex, cause error) (segIndex, error) {
	m.fixMu.Lock()
	defer m.fixMu.Unlock()
	if now := m.ix.Load(); now != nil && *now != used {
		return *now, nil
	}
	if _, rebuilt := used.(*memIndex); rebuilt {
		return nil, cause
	}
	ix, err := m.fix(cause)
	if err == nil {
		m.setIndex(ix)
	}
	return ix, err
}

func indexWant(h *segment.Header, ft *segment.Footer) index.Want {
	return index.Want{Salt: h.Salt, Number: h.Number, Chain: ft.Chain, ContentEnd: ft.ContentEnd}
}

// rebuild reads a sealed segment from its frames alone. All entries that its footer counts must be there; what is behind
// the last one carries none, so damage to it does not matter here. With an error there may be a segment too, with the
// batches in front of the damage.
func rebuild(fsys vfs.FS, path string, in *sealedInfo) (*openSeg, error) {
	f, err := compressed.OpenSegment(fsys, path)
	if err != nil {
		return nil, missing(path, err)
	}
	defer f.Close()
	path = f.Name()
	prev, err := startOf(f, path, &in.header)
	if err == nil && prev == nil && in.footer.ContentEnd > in.header.Size {
		err = &format.Error{Path: path, Offset: in.header.Size, Why: "start frame is missing", Err: format.ErrCorrupt}
	}
	if err != nil {
		if fe := (*format.Error)(nil); errors.As(err, &fe) {
			fe.FirstSeq, fe.LastSeq = in.footer.FirstSeq, in.footer.LastSeq
		}
		return nil, err
	}
	if prev == nil { // sealed without ever having been started
		st := in.footer.State()
		return newOpenSeg(path, in.header, f, st), nil
	}
	o := newOpenSeg(path, in.header, f, *prev)
	stop, err := o.advance(in.footer.ContentEnd)
	if err != nil {
		return o, err
	}
	if o.end.Load() != in.footer.ContentEnd && o.chain.Seq != in.footer.LastSeq {
		return o, &format.Error{Path: path, Offset: o.misfit(stop), FirstSeq: o.chain.Seq + 1, LastSeq: in.footer.LastSeq,
			Why: stop.Why, Err: format.ErrCorrupt}
	}
	return o, nil
}

// startOf returns the state before a segment, from its start frame; nil if the segment has none.
func startOf(f vfs.File, path string, h *segment.Header) (*segment.Chain, error) {
	b := make([]byte, segment.FooterSize)
	n, err := f.ReadAt(b, h.Size)
	if err = notEOF(err); err != nil {
		return nil, readFailed(err, path, h.Size)
	}
	b = b[:n]
	if s, ok := segment.DecodeStart(b, h.Salt, h.Size); ok {
		return &s.Prev, nil
	}
	if _, ok := segment.DecodeFooter(b, h.Salt, h.Size); ok || allZero(b) {
		return nil, nil
	}
	return nil, &format.Error{Path: path, Offset: h.Size, Why: "start frame does not validate", Err: format.ErrCorrupt}
}

// readFailed locates an error of a read, unless a compressed segment has: it knows better what is damaged.
func readFailed(err error, path string, off int64) error {
	if at := (*format.Error)(nil); errors.As(err, &at) {
		return err
	}
	return &format.Error{Path: path, Offset: off, Why: "read", Err: err}
}

func allZero(b []byte) bool { return len(trimZeros(b)) == 0 }

// trimZeros cuts the zeros off the end, a cache line or a word at a time.
func trimZeros(b []byte) []byte {
	for len(b) >= 64 {
		line := (*[64]byte)(b[len(b)-64:])
		var or uint64
		for i := 0; i < 64; i += 8 {
			or |= binary.LittleEndian.Uint64(line[i:])
		}
		if or != 0 {
			break
		}
		b = b[:len(b)-64]
	}
	for len(b) >= 8 && binary.LittleEndian.Uint64(b[len(b)-8:]) == 0 {
		b = b[:len(b)-8]
	}
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// rescue is format.Rescue.
func rescue(r any, path string, err *error) { format.Rescue(r, path, err) }
