package capture

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/runlog-io/runlog/entry"
)

// modelWindow is the window as one would write it without a care for speed.
type modelWindow struct {
	size int
	list []modelID // oldest first
}

type modelID struct {
	typ string
	id  entry.ID
}

func (m *modelWindow) add(x modelID) {
	if slices.Contains(m.list, x) {
		return
	}
	if len(m.list) == m.size {
		m.list = m.list[1:]
	}
	m.list = append(m.list, x)
}

func (m *modelWindow) addOldest(x modelID) (added, full bool) {
	if len(m.list) == m.size {
		return false, true
	}
	if slices.Contains(m.list, x) {
		return false, false
	}
	m.list = slices.Insert(m.list, 0, x)
	return true, len(m.list) == m.size
}

// playWindow runs a program on window and model: byte 0 is the size, then each two bytes are an operation. Few ids and
// bad hashes make many collisions.
func playWindow(t *testing.T, program []byte) {
	if len(program) == 0 {
		return
	}
	size := int(program[0])%40 + 1
	w, m := newWindow(size), &modelWindow{size: size}
	types := []string{"a", "b", "c", "d"}
	hashOf := func(id entry.ID) uint64 { return uint64(id[0]) * uint64(program[0]>>6) * 5 }
	for p := program[1:]; len(p) >= 2; p = p[2:] {
		x := modelID{typ: types[p[0]>>2&3], id: entry.ID{p[1]}}
		h := hashOf(x.id)
		switch p[0] & 3 {
		case 0:
			if got, want := w.has(x.typ, x.id, h), slices.Contains(m.list, x); got != want {
				t.Fatalf("has %v: %v, want %v", x, got, want)
			}
		case 1:
			added, full := w.addOldest(x.typ, x.id, h)
			if wantAdded, wantFull := m.addOldest(x); added != wantAdded || full != wantFull {
				t.Fatalf("addOldest %v: %v %v, want %v %v", x, added, full, wantAdded, wantFull)
			}
		default:
			w.add(x.typ, x.id, h)
			m.add(x)
		}
		if w.n != len(m.list) || w.full() != (len(m.list) == size) {
			t.Fatalf("%d identities, want %d", w.n, len(m.list))
		}
	}
	for _, typ := range types {
		for b := range 256 {
			x := modelID{typ, entry.ID{byte(b)}}
			if got, want := w.has(typ, x.id, hashOf(x.id)), slices.Contains(m.list, x); got != want {
				t.Fatalf("at the end: has %v: %v, want %v", x, got, want)
			}
		}
	}
	used := 0
	for _, pos := range w.table {
		if pos != 0 {
			used++
		}
	}
	if used != w.n {
		t.Fatalf("table refers to %d identities, there are %d", used, w.n)
	}
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 2, 1, 0, 1, 2, 2, 0, 1})
	f.Add([]byte{67, 1, 1, 1, 2, 2, 3, 6, 3, 2, 4, 2, 5, 0, 1})
	f.Add([]byte{255, 1, 9, 2, 9, 1, 8, 2, 7, 2, 6, 2, 5})
	f.Fuzz(playWindow)
}

func TestWindowEqualsItsModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		program := make([]byte, 1+2*rnd.IntN(400))
		for i := range program {
			program[i] = byte(rnd.Uint32())
			if i > 0 && i%2 == 0 {
				program[i] %= 64
			}
		}
		playWindow(t, program)
	}
}

func TestScratchDoesNotKeepHugeBuffers(t *testing.T) {
	a, err := New(NewRegistry(), noLog{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sc := new(scratch)
	a.release(sc, make([]byte, keepBytes+1))
	if sc.buf != nil {
		t.Errorf("kept %d bytes", cap(sc.buf))
	}
	sc = new(scratch)
	sc.keys.AddBytes("k", make([]byte, keepBytes+1))
	a.release(sc, make([]byte, 300))
	if cap(sc.keys.arena) != 0 || cap(sc.buf) < 300 || len(sc.keys.list) != 0 {
		t.Error("release kept too much or too little")
	}
	if kept := sc.keys.list[:1][0]; kept != (entry.Key{}) {
		t.Error("idle scratch memory refers to a message")
	}
}

type noLog struct{}

func (noLog) Submit(entry.Draft) (uint64, error) { return 1, nil }
