package index

import (
	"bytes"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// smallModel has everything that an index file can hold, in little space.
func smallModel() *model {
	m := newModel(1000)
	m.note(entry.NoteAnchor) // before the first entry
	m.addRandom(4, 120, 60)
	m.note(entry.NoteStateHash)
	m.note(entry.NoteStreams)
	for i := range uint64(8) {
		m.add(1, 0xffffffff_00000000|i, 5)
	}
	m.note(entry.NoteGap)
	return m
}

func TestEveryFlippedBitOfAnIndexIsNoticed(t *testing.T) {
	m := smallModel()
	data := m.encode(t)
	for bit := range len(data) * 8 {
		bad := bytes.Clone(data)
		bad[bit/8] ^= 1 << (bit % 8)
		f, err := openBytes(bad, m.meta)
		if err != nil {
			if !isBadFile(err) {
				t.Fatalf("bit %d of byte %d: Open: %v", bit%8, bit/8, err)
			}
			continue
		}
		if err := m.checkFile(f, true); err != nil {
			t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
		if err := f.VerifyAll(); !isCorrupt(err) {
			t.Fatalf("bit %d of byte %d: VerifyAll: %v", bit%8, bit/8, err)
		}
	}
}

func TestEveryTruncationOfAnIndexIsNoticed(t *testing.T) {
	m := smallModel()
	data := m.encode(t)
	for n := range data {
		if _, err := openBytes(data[:n:n], m.meta); !isCorrupt(err) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	for _, n := range []int{1, 8, 64, 4096} {
		if _, err := openBytes(append(bytes.Clone(data), make([]byte, n)...), m.meta); !isCorrupt(err) {
			t.Fatalf("%d bytes more: %v", n, err)
		}
	}
}

// A header whose sum is right can still lie; each of these must be refused before anything is read on its word.
func TestOpenDistrustsSealedHeaders(t *testing.T) {
	m := smallModel()
	data := m.encode(t)
	for field := hdrFirstSeq; field < hdrEnd; field += 8 {
		for _, v := range []uint64{0, 1, 63, 1 << 20, 1 << 31, 1<<32 + 64, 1 << 62, 1<<63 + 8, 1<<64 - 1, 1<<64 - 64} {
			bad := bytes.Clone(data)
			le.PutUint64(bad[field:], v)
			reseal(bad)
			f, err := openBytes(bad, m.meta)
			if err != nil {
				if !isCorrupt(err) {
					t.Errorf("field at %d = %#x: %v", field, v, err)
				}
				continue
			}
			exercise(f)
			switch field {
			case hdrFirstSeq, hdrMinInit, hdrMaxInit, hdrMinPublish, hdrMaxPublish, hdrBaseTime:
				// nothing contradicts these
			case hdrKeys, hdrKeyPostings:
				if v != le.Uint64(data[field:]) && !isCorrupt(f.VerifyAll()) {
					t.Errorf("field at %d = %#x is accepted", field, v)
				}
			default:
				if v != le.Uint64(data[field:]) {
					t.Errorf("field at %d = %#x is accepted", field, v)
				}
			}
		}
	}
	bad := bytes.Clone(data)
	le.PutUint32(bad[hdrSampleEvery:], 0)
	reseal(bad)
	if _, err := openBytes(bad, m.meta); !isCorrupt(err) {
		t.Error(err)
	}
	wide := make([]byte, headerSize+64) // a header that is longer than this version's
	format.SealHeader(wide, format.MagicIndex, Version, m.meta.Salt)
	if _, err := openBytes(wide, m.meta); !isCorrupt(err) {
		t.Error(err)
	}
	copy(wide, format.MagicFilter)
	if _, err := openBytes(wide, m.meta); !isBadFile(err) {
		t.Error(err)
	}
}

// exercise calls everything; that nothing panics is the point.
func exercise(f *File) {
	var buf []uint64
	for i := range 40 {
		fp := order(i)
		_, _, _ = f.First(fp)
		buf, _ = f.Seqs(fp, buf[:0])
		_, _, _ = f.Offset(f.bounds.FirstSeq + uint64(i*i))
	}
	tags := 0
	_ = f.Keys(func(tag uint64) bool {
		// The home bucket of a tag is not known, so all of them are tried in small files.
		for h := uint64(0); h < 1<<16 && tags < 64; h += 1 << 12 {
			_, _, _ = f.First(h<<48 | tag)
			buf, _ = f.Seqs(h<<48|tag, buf[:0])
		}
		tags++
		return true
	})
	_, _, _ = f.Offset(f.bounds.LastSeq())
	f.HasTopic("topic.1")
	_ = f.VerifyAll()
}

// Pieces whose checks are right but whose content cannot be: each is refused by who uses it, and found by VerifyAll.
func TestSealedNonsenseIsRefused(t *testing.T) {
	build := func() (*model, []byte, sections) {
		m := newModel(1)
		for i := range 20 {
			m.add(1, 42, order(i))
		}
		m.note(entry.NoteAnchor)
		m.note(entry.NoteStateHash)
		f := m.open(t)
		return m, m.encode(t), f.s
	}
	slotOf := func(b []byte, s sections, fp uint64) []byte { // the value of a key
		for at := s.bucketsAt; at < s.postingsAt; at += 4 {
			bucket := b[(at-s.bucketsAt)/bucketSize*bucketSize+s.bucketsAt:][:bucketSize]
			i := int(at-s.bucketsAt)%bucketSize/4 - 1
			if i >= 0 && i < bucketSlots && slotTag(bucket, i) == fp&tagMask {
				return b[at:]
			}
		}
		t.Fatal("no such key")
		return nil
	}
	for name, damage := range map[string]func(b []byte, s sections){
		"list is empty":           func(b []byte, s sections) { le.PutUint32(b[s.postingsAt+4:], 0) },
		"list is too long":        func(b []byte, s sections) { le.PutUint32(b[s.postingsAt+4:], 1<<31) },
		"list ends in its middle": func(b []byte, s sections) { b[s.postingsAt+listHead+19] = 0x80 },
		"list has an endless value": func(b []byte, s sections) {
			copy(b[s.postingsAt+listHead:], bytes.Repeat([]byte{0xff}, 11))
		},
		"list is not ascending":     func(b []byte, s sections) { b[s.postingsAt+listHead+3] = 0 },
		"list names a later entry":  func(b []byte, s sections) { b[s.postingsAt+listHead] = 100 },
		"list is behind the end":    func(b []byte, s sections) { le.PutUint32(slotOf(b, s, 42), valueList|1<<20) },
		"padding":                   func(b []byte, s sections) { b[s.postingsAt+listHead+20] = 1 },
		"key of a later entry":      func(b []byte, s sections) { le.PutUint32(slotOf(b, s, order(3)), 20) },
		"key is freed":              func(b []byte, s sections) { le.PutUint32(slotOf(b, s, order(3)), valueFree) },
		"two keys with one list":    func(b []byte, s sections) { le.PutUint32(slotOf(b, s, order(3)), valueList) },
		"list is lost":              func(b []byte, s sections) { le.PutUint32(slotOf(b, s, 42), 3) },
		"sample behind the content": func(b []byte, s sections) { le.PutUint32(b[s.samplesAt+8:], 1<<31) },
		"samples do not ascend":     func(b []byte, s sections) { le.PutUint32(b[s.samplesAt+8:], 1) },
		"unused sample":             func(b []byte, s sections) { le.PutUint32(b[s.samplesAt+13*4:], 1) },
		"header padding":            func(b []byte, s sections) { b[headerSize-1] = 1 },
		"padding before dictionary": func(b []byte, s sections) { b[s.dictAt-1] = 1 },
		"padding behind dictionary": func(b []byte, s sections) { b[s.dictAt+s.dictSize] = 1 },
		"padding behind notes":      func(b []byte, s sections) { b[s.notesAt+s.notesSize] = 1 },
		"more notes than there are": func(b []byte, s sections) { b[s.notesAt] = 3 },
		"notes behind the last one": func(b []byte, s sections) { b[s.notesAt] = 1 },
		"a note of another kind":    func(b []byte, s sections) { b[s.notesAt+1] = byte(entry.NoteMarker) },
		"a note behind the entries": func(b []byte, s sections) { b[s.notesAt+2] = 100 },
		"two notes in one place":    func(b []byte, s sections) { b[s.notesAt+7] = 0 },
	} {
		m, data, s := build()
		damage(data, s)
		reseal(data)
		f, err := openBytes(data, m.meta)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		exercise(f)
		for fp := range m.keys {
			_, _, err1 := f.First(fp)
			_, err2 := f.Seqs(fp, nil)
			for _, err := range []error{err1, err2} {
				if err != nil && !isCorrupt(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if err := f.VerifyAll(); !isCorrupt(err) {
			t.Errorf("%s: VerifyAll: %v", name, err)
		}
	}
}

func TestSealedDictionaryNonsenseIsRefused(t *testing.T) {
	m := newModel(1)
	m.add(1)
	m.add(2)
	good, err := appendDict(nil, m.b, m.dict)
	if err != nil {
		t.Fatal(err)
	}
	// The file is laid out afresh round each dictionary.
	open := func(dict []byte) error {
		data := m.encode(t)
		s := m.open(t).s
		s.dictSize = int64(len(dict)) + trailerSize
		s.lay()
		data = append(data[:s.dictAt:s.dictAt], dict...)
		data = append(data, make([]byte, s.trailerAt+trailerSize-int64(len(data)))...)
		le.PutUint64(data[hdrDictSize:], uint64(s.dictSize))
		le.PutUint64(data[hdrFileSize:], uint64(len(data)))
		reseal(data)
		_, err := openBytes(data, m.meta)
		return err
	}
	if err := open(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if err := open(good[:n]); !isCorrupt(err) {
			t.Errorf("%d of %d bytes: %v", n, len(good), err)
		}
	}
	route := func(no byte, topic string, entries byte) []byte {
		b := append([]byte{no, byte(len(topic))}, topic...)
		return append(b, 1, 'T', entries)
	}
	dict := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tail := []byte{0, 0} // no kinds, nothing inline
	kind := func(no byte, name string) []byte { return append([]byte{no, byte(len(name))}, name...) }
	first := byte(entry.FirstUserKind)
	if err := open(dict([]byte{2}, route(1, "a", 1), route(2, "b", 1), tail)); err != nil {
		t.Error(err)
	}
	for name, b := range map[string][]byte{
		"trailing byte":      append(bytes.Clone(good), 0),
		"long form":          dict([]byte{0x82, 0}, route(1, "a", 1), route(2, "b", 1), tail),
		"many routes":        dict([]byte{0xff, 0xff, 0xff, 0x7f}, route(1, "a", 1), route(2, "b", 1), tail),
		"route 0":            dict([]byte{1}, route(0, "a", 2), tail),
		"routes descend":     dict([]byte{2}, route(2, "a", 1), route(1, "b", 1), tail),
		"route number":       dict([]byte{1, 0xff, 0xff, 0xff, 0x7f}, route(1, "a", 2)[1:], tail),
		"route unused":       dict([]byte{2}, route(1, "a", 2), route(2, "b", 0), tail),
		"too few entries":    dict([]byte{1}, route(1, "a", 1), tail),
		"too many entries":   dict([]byte{1}, route(1, "a", 3), tail),
		"empty topic":        dict([]byte{1}, route(1, "", 2), tail),
		"topic is not UTF-8": dict([]byte{1}, route(1, "\xff", 2), tail),
		"kind number":        dict([]byte{1}, route(1, "a", 2), []byte{1}, kind(first+1, "k"), []byte{0}),
		"kind twice":         dict([]byte{1}, route(1, "a", 2), []byte{2}, kind(first, "k"), kind(first, "k"), []byte{0}),
		"built-in kind":      dict([]byte{1}, route(1, "a", 2), []byte{1}, kind(3, "id"), []byte{0}),
		"inline":             dict([]byte{1}, route(1, "a", 2), []byte{0, 1}),
	} {
		if err := open(b); !isCorrupt(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFlippedBitOfAFilterIsNoticed(t *testing.T) {
	files, models, salts := openFiles(t, 1, 4, 50)
	fsys := newMemFS()
	if err := BuildFilter(fsys, "", 1, 4, files); err != nil {
		t.Fatal(err)
	}
	data := fsys.files[FilterName(1, 4)].b
	want := FilterWant{First: 1, Last: 4, Salts: ChainSalts(salts...)}
	for bit := range len(data) * 8 {
		bad := bytes.Clone(data)
		bad[bit/8] ^= 1 << (bit % 8)
		f, err := OpenFilter(withFile(bad), "x", want)
		if err != nil {
			if !isBadFile(err) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			continue
		}
		for _, m := range models {
			for fp := range m.keys {
				if ok, err := f.MayContain(fp); !ok && !isCorrupt(err) {
					t.Fatalf("bit %d: MayContain = %v %v", bit, ok, err)
				}
			}
		}
		if err := f.VerifyAll(); !isCorrupt(err) {
			t.Fatalf("bit %d: VerifyAll: %v", bit, err)
		}
	}
	for n := range data {
		if _, err := OpenFilter(withFile(data[:n:n]), "x", want); !isCorrupt(err) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	if _, err := OpenFilter(withFile(append(bytes.Clone(data), 0)), "x", want); !isCorrupt(err) {
		t.Error(err)
	}
}
