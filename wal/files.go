package wal

import (
	"container/list"
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
	info   atomic.Pointer[sealedInfo] // loaded when first needed
	lost   atomic.Pointer[lostSeg]    // the verdict, once it is known that it cannot be read to its end
	edge   atomic.Pointer[[2]uint64]  // see edges
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

// files opens and maps finished segments and their indexes, keeps the most recently used ones, and never unmaps what
// is pinned.
type files struct {
	fsys   vfs.FS
	dir    string
	keep   int
	run    string      // whose segments they are; "" while that is not known
	blocks *blockCache // of compressed segments
	warn   func(error) // a damaged index or filter that was worked around

	mu     sync.Mutex
	closed bool
	byKey  map[string]*mapped
	lru    list.List // of *mapped that are loaded, pinned or not; front is the most recent
}

// mapped is a sealed segment, or a filter, in memory.
type mapped struct {
	key    string
	pins   int
	elem   *list.Element
	once   sync.Once
	err    error
	path   string
	data   vfs.Mapping
	bytes  []byte // the segment's content, footer excluded; nil: it is compressed
	packed *compressed.File
	blocks *blockCache
	salt   uint64
	info   *sealedInfo
	ix     atomic.Pointer[segIndex] // replaced when the file turns out to be damaged
	file   *index.File
	fixMu  sync.Mutex
	fix    func(cause error) (segIndex, error)
	filter *index.Filter
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
	return &files{fsys: fsys, dir: dir, keep: keep, warn: warn, byKey: make(map[string]*mapped), blocks: newBlockCache(blockCacheBytes)}
}

// held pins what is already mapped under key; nil if nothing is. It does not allocate.
func (fs *files) held(key string) *mapped {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if m := fs.byKey[key]; m != nil && m.elem != nil {
		m.pins++
		return m
	}
	return nil
}

// heldName is held for a name that is in a buffer.
func (fs *files) heldName(key []byte) *mapped {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if m := fs.byKey[string(key)]; m != nil && m.elem != nil {
		m.pins++
		return m
	}
	return nil
}

// pin returns the mapped thing under key, loading it if need be. Errors are not remembered.
func (fs *files) pin(key string, load func(m *mapped) error) (*mapped, error) {
	fs.mu.Lock()
	if fs.closed {
		fs.mu.Unlock()
		return nil, format.ErrClosed
	}
	m := fs.byKey[key]
	if m == nil {
		m = &mapped{key: key}
		fs.byKey[key] = m
	}
	m.pins++
	fs.mu.Unlock()
	m.once.Do(func() { m.err = load(m) })
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if m.err == nil {
		if m.elem == nil && fs.byKey[key] == m {
			m.elem = fs.lru.PushFront(m)
		}
		return m, nil
	}
	if fs.byKey[key] == m {
		delete(fs.byKey, key)
	}
	if m.pins--; m.pins == 0 {
		m.close()
	}
	return nil, m.err
}

func (fs *files) unpin(m *mapped) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	m.pins--
	if fs.byKey[m.key] != m { // closeAll has let go of it
		if m.pins == 0 {
			m.close()
		}
		return
	}
	fs.lru.MoveToFront(m.elem)
	for e := fs.lru.Back(); e != nil && fs.lru.Len() > fs.keep; {
		old, before := e.Value.(*mapped), e.Prev()
		if old.pins == 0 {
			fs.lru.Remove(e)
			delete(fs.byKey, old.key)
			old.close()
		}
		e = before
	}
}

// forget lets go of what is mapped under key, whose file has been replaced: at once, or when it is unpinned.
func (fs *files) forget(key string) {
	fs.mu.Lock()
	m := fs.byKey[key]
	if m == nil || m.elem == nil {
		fs.mu.Unlock()
		return
	}
	delete(fs.byKey, key)
	fs.lru.Remove(m.elem)
	m.elem = nil
	idle := m.pins == 0
	fs.mu.Unlock()
	if idle {
		m.close()
	}
}

// closeAll unmaps everything; what is pinned goes when it is unpinned.
func (fs *files) closeAll() {
	fs.mu.Lock()
	all := fs.byKey
	fs.closed = true
	fs.byKey = make(map[string]*mapped)
	fs.lru.Init()
	var drop []*mapped
	for _, m := range all {
		m.elem = nil
		if m.pins == 0 {
			drop = append(drop, m)
		}
	}
	fs.mu.Unlock()
	for _, m := range drop {
		m.close()
	}
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
	if m := fs.held(ref.path); m != nil {
		return m, nil
	}
	return fs.pin(ref.path, func(m *mapped) error { return fs.loadSegment(ref, m) })
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
