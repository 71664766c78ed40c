package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// memFS keeps files in memory; its failAt-th call that changes something fails.
type memFS struct {
	vfs.FS // for what is not needed here
	mu     sync.Mutex
	files  map[string]*memFile
	calls  int
	failAt int
}

var errInjected = errors.New("injected")

func newMemFS() *memFS { return &memFS{files: map[string]*memFile{}} }

func (m *memFS) step() error {
	if m.calls++; m.calls == m.failAt {
		return errInjected
	}
	return nil
}

func (m *memFS) OpenRead(name string) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}

func (m *memFS) Create(name string) (vfs.File, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	if m.files[name] != nil {
		return nil, fs.ErrExist
	}
	f := &memFile{fs: m}
	m.files[name] = f
	return f, nil
}

func (m *memFS) Remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.files[name] == nil {
		return fs.ErrNotExist
	}
	delete(m.files, name)
	return nil
}

func (m *memFS) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *memFS) SyncDir(string) error { return m.step() }

type memFile struct {
	vfs.File
	fs     *memFS
	b      []byte
	noMap  bool
	noSize bool
	unmaps int
}

func (f *memFile) Size() (int64, error) {
	if f.noSize {
		return 0, errInjected
	}
	return int64(len(f.b)), nil
}
func (f *memFile) Close() error { return nil }
func (f *memFile) Datasync() error {
	return f.fs.step()
}
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.step(); err != nil {
		return 0, err
	}
	if n := off + int64(len(p)) - int64(len(f.b)); n > 0 {
		f.b = append(f.b, make([]byte, n)...)
	}
	return copy(f.b[off:], p), nil
}
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if n := copy(p, f.b[min(off, int64(len(f.b))):]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}
func (f *memFile) Map(size int64) (vfs.Mapping, error) {
	if f.noMap {
		return nil, errInjected
	}
	return &memMapping{f: f, b: f.b[:size:size]}, nil
}

type memMapping struct {
	f *memFile
	b []byte
}

func (m *memMapping) Bytes() []byte { return m.b }
func (m *memMapping) Close() error  { m.f.unmaps++; return nil }

// withFile is a file system that holds one file, "x".
func withFile(b []byte) *memFS {
	m := newMemFS()
	m.files["x"] = &memFile{fs: m, b: b}
	return m
}

// model is what an index should know.
type model struct {
	first   uint64
	offsets []int64 // by seq - first
	keys    map[uint64][]uint64
	counts  map[uint32]uint64
	notes   []NoteRef
	b       *Builder
	dict    *entry.Dict
	meta    Meta
}

func newModel(first uint64) *model {
	m := &model{
		first: first, keys: map[uint64][]uint64{}, counts: map[uint32]uint64{}, b: NewBuilder(first),
		dict: entry.NewDict(1700000000e9), meta: Meta{Number: 7, Salt: 0x1122334455667788, Chain: 99, ContentEnd: 4096},
	}
	for no := uint32(1); no <= 3; no++ {
		m.dict.SetRoute(no, entry.Route{Topic: fmt.Sprint("topic.", no), Type: fmt.Sprint("Type", no)})
	}
	m.dict.SetRoute(200, entry.Route{Topic: "topic.far", Type: "Far"})
	kinds, _, _ := m.dict.Kinds().With("account")
	kinds, _, _ = kinds.With("strategy")
	m.dict.SetKinds(kinds)
	return m
}

// add adds the next entry with these keys.
func (m *model) add(route uint32, fps ...uint64) uint64 {
	seq := m.first + uint64(len(m.offsets))
	offset := m.meta.ContentEnd
	m.offsets = append(m.offsets, offset)
	m.meta.ContentEnd += 8 + 8*int64(seq%7)
	m.b.AddEntry(seq, offset)
	m.b.AddTimes(1000+int64(seq*7%13), int64(seq))
	m.b.AddRoute(route)
	m.counts[route]++
	for _, fp := range fps {
		m.b.AddKey(fp, seq)
		if s := m.keys[fp]; len(s) == 0 || s[len(s)-1] != seq {
			m.keys[fp] = append(s, seq)
		}
	}
	return seq
}

// note adds a note behind the entries so far.
func (m *model) note(kind entry.NoteKind) {
	m.notes = append(m.notes, NoteRef{Kind: kind, After: m.first + uint64(len(m.offsets)) - 1, Offset: m.meta.ContentEnd})
	m.b.AddNote(kind, m.meta.ContentEnd)
	m.meta.ContentEnd += 64
}

// order is a fingerprint of a numbered order id.
func order(i int) uint64 { return entry.FingerprintString(entry.NoClientOrderID, fmt.Sprint("O-", i)) }

// randomModel has entries with 0 to 3 of some keys each, some repeated in the same entry.
func randomModel(seed uint64, first uint64, entries, keys int) *model {
	m := newModel(first)
	m.addRandom(seed, entries, keys)
	return m
}

func (m *model) addRandom(seed uint64, entries, keys int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range entries {
		var fps []uint64
		for range rnd.IntN(4) {
			fps = append(fps, order(rnd.IntN(keys)))
		}
		m.add([]uint32{0, 1, 2, 200}[rnd.IntN(4)], fps...)
	}
}

func (m *model) encode(t testing.TB) []byte {
	t.Helper()
	b, err := Encode(m.b, m.dict, m.meta)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write makes an index file of what the model holds.
func (m *model) write(fsys vfs.FS, dir, name string) error {
	b, err := Encode(m.b, m.dict, m.meta)
	if err != nil {
		return err
	}
	return Write(fsys, dir, name, b)
}

func openBytes(b []byte, want Want) (*File, error) { return Open(withFile(b), "x", want) }

func (m *model) open(t testing.TB) *File {
	t.Helper()
	f, err := openBytes(m.encode(t), m.meta)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// checkFile compares every answer of an index file with the model. With damaged set, errors that wrap ErrCorrupt will
// do in place of an answer.
func (m *model) checkFile(f *File, damaged bool) error {
	var buf []uint64
	for fp, want := range m.keys {
		got, err := f.Seqs(fp, buf[:0])
		if err == nil && !slices.Equal(got, want) {
			return fmt.Errorf("Seqs(%#x) = %v, want %v", fp, got, want)
		}
		seq, ok, err1 := f.First(fp)
		if err1 == nil && (!ok || seq != want[0]) {
			return fmt.Errorf("First(%#x) = %d %v, want %d", fp, seq, ok, want[0])
		}
		for _, err := range []error{err, err1} {
			if err != nil && !(damaged && isCorrupt(err)) {
				return err
			}
		}
		buf = got
	}
	for i := range 20 {
		if _, ok, err := f.First(order(-1 - i)); ok || err != nil && !(damaged && isCorrupt(err)) {
			return fmt.Errorf("First of an absent key: %v %v", ok, err)
		}
	}
	for i := range m.offsets {
		seq := m.first + uint64(i)
		at, offset, err := f.Offset(seq)
		if err != nil {
			if damaged && isCorrupt(err) {
				continue
			}
			return err
		}
		if at != seq-uint64(i%SampleEvery) || offset != m.offsets[i-i%SampleEvery] {
			return fmt.Errorf("Offset(%d) = %d, %d", seq, at, offset)
		}
	}
	for _, seq := range []uint64{m.first - 1, m.first + uint64(len(m.offsets)), 1 << 63} {
		if _, _, err := f.Offset(seq); !errors.Is(err, format.ErrNotFound) {
			return fmt.Errorf("Offset(%d): %v, want ErrNotFound", seq, err)
		}
	}
	for no, n := range m.counts {
		if f.RouteCount(no) != n {
			return fmt.Errorf("RouteCount(%d) = %d, want %d", no, f.RouteCount(no), n)
		}
	}
	notes, err := f.Notes()
	if err != nil && !(damaged && isCorrupt(err)) {
		return err
	}
	if err == nil && !slices.Equal(notes, m.notes) {
		return fmt.Errorf("Notes() = %v, want %v", notes, m.notes)
	}
	return nil
}

// checkBuilder compares every answer of the Builder with the model.
func (m *model) checkBuilder() error {
	for fp, want := range m.keys {
		for _, i := range []int{0, len(want) / 2, len(want) - 1} {
			if got := m.b.Seqs(fp, want[i], nil); !slices.Equal(got, want[:i+1]) {
				return fmt.Errorf("Seqs(%#x, %d) = %v, want %v", fp, want[i], got, want[:i+1])
			}
		}
		if seq, ok := m.b.First(fp, want[0]); !ok || seq != want[0] {
			return fmt.Errorf("First(%#x) = %d %v, want %d", fp, seq, ok, want[0])
		}
		if _, ok := m.b.First(fp, want[0]-1); ok {
			return fmt.Errorf("First(%#x) found an entry behind maxSeq", fp)
		}
	}
	for i := range m.offsets {
		seq := m.first + uint64(i)
		at, offset, ok := m.b.Offset(seq)
		if !ok || at != seq-uint64(i%SampleEvery) || offset != m.offsets[i-i%SampleEvery] {
			return fmt.Errorf("Offset(%d) = %d, %d, %v", seq, at, offset, ok)
		}
	}
	for no, n := range m.counts {
		if m.b.RouteCount(no) != n {
			return fmt.Errorf("RouteCount(%d) = %d, want %d", no, m.b.RouteCount(no), n)
		}
	}
	if !slices.Equal(m.b.Notes(), m.notes) {
		return fmt.Errorf("Notes() = %v, want %v", m.b.Notes(), m.notes)
	}
	return m.b.Err()
}

// isCorrupt reports whether err is a located error that wraps ErrCorrupt.
func isCorrupt(err error) bool {
	var at *format.Error
	return errors.Is(err, format.ErrCorrupt) && errors.As(err, &at) && at.Path != "" && at.Offset >= 0
}

// isBadFile accepts damage of every kind that a caller answers by building the index again.
func isBadFile(err error) bool {
	return isCorrupt(err) || errors.Is(err, format.ErrWrongKind) || errors.Is(err, format.ErrVersion)
}

// reseal makes the checks of an index file right again after its bytes were changed, as far as its header makes sense.
func reseal(b []byte) {
	if len(b) < headerSize+trailerSize {
		return
	}
	salt, size := le.Uint64(b[16:]), uint64(len(b)-trailerSize)
	piece := func(at, n uint64) []byte {
		if at > size || n > size-at {
			return nil
		}
		return b[at : at+n]
	}
	lines, buckets := le.Uint64(b[hdrSamplesAt:]), le.Uint64(b[hdrBucketsAt:])
	postings, dict := le.Uint64(b[hdrPostingsAt:]), le.Uint64(b[hdrDictAt:])
	for at := lines; at < buckets && piece(at, lineSize) != nil; at += lineSize {
		p := piece(at, lineSize)
		le.PutUint64(p[lineCheck:], format.Check64(p[:lineCheck], salt, int64(at)))
	}
	for at := buckets; at < postings && piece(at, bucketSize) != nil; at += bucketSize {
		p := piece(at, bucketSize)
		le.PutUint32(p, format.Check32(p[bucketValues:], salt, int64(at)))
	}
	for at := postings; at < dict && piece(at, listHead) != nil; {
		n := uint64(le.Uint32(piece(at, listHead)[4:]))
		p := piece(at, listHead+n)
		if p == nil {
			break
		}
		le.PutUint32(p, format.Check32(p[4:], salt, int64(at)))
		at += (listHead + n + 7) &^ 7
	}
	if p := piece(dict, le.Uint64(b[hdrDictSize:])); len(p) >= trailerSize {
		body := p[:len(p)-trailerSize]
		le.PutUint64(p[len(body):], format.Check64(body, salt, int64(dict)))
	}
	if p := piece(le.Uint64(b[hdrNotesAt:]), le.Uint64(b[hdrNotesSize:])); len(p) >= trailerSize {
		body := p[:len(p)-trailerSize]
		le.PutUint64(p[len(body):], format.Check64(body, salt, int64(le.Uint64(b[hdrNotesAt:]))))
	}
	format.SealHeader(b[:headerSize], format.MagicIndex, Version, salt)
	le.PutUint64(b[size:], xxhash.Sum64(b[:size]))
}

// openFiles makes index files of consecutive segments with keys of their own.
func openFiles(t testing.TB, first uint32, n, keysEach int) (files []*File, models []*model, salts []uint64) {
	t.Helper()
	for i := range n {
		m := newModel(1 + uint64(i)*1000)
		m.meta.Number, m.meta.Salt = first+uint32(i), format.Mix(uint64(first)+uint64(i))
		for k := range keysEach {
			m.add(1, order(i*keysEach+k))
		}
		files, models, salts = append(files, m.open(t)), append(models, m), append(salts, m.meta.Salt)
	}
	return files, models, salts
}

func join(dir, name string) string { return filepath.Join(dir, name) }
