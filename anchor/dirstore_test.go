package anchor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/runlog-io/runlog/vfs"
)

const dir = "/store"

func newStore(t testing.TB, fsys vfs.FS) *DirStore {
	t.Helper()
	s, err := NewDirStore(fsys, dir, rand.New(rand.NewPCG(1, 2)).Uint64)
	must(t, err)
	return s
}

func list(t testing.TB, s *DirStore) (blobs []Blob) {
	t.Helper()
	for b, err := range s.List(t.Context()) {
		must(t, err)
		blobs = append(blobs, b)
	}
	return blobs
}

func anchorOf(b Blob) Anchor { return Anchor{Covers: 1, Size: b.Size, SHA256: b.SHA256, Ref: b.Ref} }

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestABlobComesBackAsItWasPut(t *testing.T) {
	for _, fsys := range []vfs.FS{vfs.NewMem(vfs.MemOptions{}), vfs.OS} {
		where := dir
		if fsys == vfs.OS {
			where = t.TempDir() + "/a/b"
		}
		s, err := NewDirStore(fsys, where, nil)
		must(t, err)
		for _, n := range []int{0, 1, 4096, piece - 1, piece, piece + 1, 3*piece + 5} {
			want := content(n)
			b, err := s.Put(t.Context(), iotest.HalfReader(bytes.NewReader(want)))
			must(t, err)
			r, err := Open(t.Context(), s, anchorOf(b))
			must(t, err)
			got, err := io.ReadAll(r)
			must(t, errors.Join(err, r.Close(), Check(t.Context(), s, anchorOf(b))))
			if !bytes.Equal(got, want) || b.Size != int64(n) {
				t.Fatalf("%d bytes came back as %d, said to be %d", n, len(got), b.Size)
			}
		}
	}
}

func TestBlobsOfTheSameContentAreTheirOwn(t *testing.T) {
	s := newStore(t, vfs.NewMem(vfs.MemOptions{}))
	a, err := s.Put(t.Context(), strings.NewReader("state"))
	must(t, err)
	b, err := s.Put(t.Context(), strings.NewReader("state"))
	must(t, err)
	if a.Ref == b.Ref || a.SHA256 != b.SHA256 || len(list(t, s)) != 2 {
		t.Fatalf("%+v and %+v", a, b)
	}
	must(t, s.Delete(t.Context(), a.Ref))
	must(t, Check(t.Context(), s, anchorOf(b)))
	wantIs(t, Check(t.Context(), s, anchorOf(a)), fs.ErrNotExist)
	wantIs(t, s.Delete(t.Context(), a.Ref), fs.ErrNotExist)
	if got := list(t, s); !slices.Equal(got, []Blob{b}) {
		t.Fatalf("the list is %+v, want %+v", got, b)
	}
}

func TestAReferenceNeverLeadsOutOfTheStore(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	s := newStore(t, mem)
	b, err := s.Put(t.Context(), strings.NewReader("x"))
	must(t, err)
	for _, ref := range []string{"", ".", "../store/" + b.Ref, "/etc/passwd", b.Ref + "/", strings.ToUpper(b.Ref), "x" + b.Ref[1:], b.Ref[:64] + "/" + b.Ref[65:],
		strings.Repeat("0", 16) + tmpSuffix} {
		if _, err := s.Open(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %q: %v", ref, err)
		}
		if err := s.Delete(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("delete %q: %v", ref, err)
		}
	}
}

func TestAnAlteredBlobIsNeverPassedOff(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	s := newStore(t, mem)
	b, err := s.Put(t.Context(), bytes.NewReader(content(1000)))
	must(t, err)
	name := dir + "/" + b.Ref
	for what, damage := range map[string]func(vfs.File) error{
		"flipped bit": func(f vfs.File) error { _, err := f.WriteAt([]byte{content(1000)[500] ^ 1}, 500); return err },
		"cut short":   func(f vfs.File) error { return f.Truncate(999) },
		"empty":       func(f vfs.File) error { return f.Truncate(0) },
		"longer":      func(f vfs.File) error { _, err := f.WriteAt([]byte{0}, 1000); return err },
	} {
		left := mem.Kill()
		f, err := left.Open(name)
		must(t, err)
		must(t, errors.Join(damage(f), f.Close()))
		err = Check(t.Context(), OpenDirStore(left, dir, nil), anchorOf(b))
		if !errors.Is(err, ErrBlob) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAFailedPutLeavesNothing(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	s := newStore(t, mem)
	boom := errors.New("boom")
	_, err := s.Put(t.Context(), iotest.ErrReader(boom))
	wantIs(t, err, boom)
	_, err = s.Put(t.Context(), io.MultiReader(strings.NewReader("the first half"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	wantIs(t, err, io.ErrUnexpectedEOF) // the source was cut short: that is no end
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Put(ctx, strings.NewReader("x"))
	wantIs(t, err, context.Canceled)
	for _, op := range []vfs.OpKind{vfs.OpWrite, vfs.OpDatasync, vfs.OpRename, vfs.OpSyncDir, vfs.OpCreate} {
		in := mem.Inject(vfs.Rule{Kind: op, Err: syscall.EIO})
		_, err := s.Put(t.Context(), strings.NewReader("x"))
		wantIs(t, err, syscall.EIO)
		in.Remove()
		names, err := mem.ReadDir(dir)
		if err != nil || len(names) != 0 {
			t.Errorf("%v failed, and %v is there, %v", op, names, err)
		}
	}
}

// At every operation of two puts, the power goes: whatever is listed then is whole.
func TestAPowerCutLeavesWholeBlobsOrNone(t *testing.T) {
	for seed := range uint64(8) {
		mem := vfs.NewMem(vfs.MemOptions{Garbage: seed%2 == 1})
		s := newStore(t, mem)
		var done []Blob
		judge := func(op vfs.Op) {
			for i := range uint64(6) {
				left := mem.Crash([]vfs.Chooser{vfs.LoseAll(), vfs.KeepAll(), vfs.Scramble(), vfs.Random(seed), vfs.Random(seed + 100), vfs.Random(uint64(op.N))}[i])
				after := OpenDirStore(left, dir, nil)
				found := list(t, after)
				for _, b := range found {
					must(t, Check(t.Context(), after, anchorOf(b)))
				}
				for _, b := range done {
					if !slices.Contains(found, b) {
						t.Fatalf("before %v: %s is gone", op, b.Ref)
					}
				}
				must(t, after.RemoveUnfinished())
				if names, err := left.ReadDir(dir); err != nil || len(names) != len(found) {
					t.Fatalf("before %v: %d blobs, and %v after cleaning up, %v", op, len(found), names, err)
				}
			}
		}
		mem.SetHook(func(op vfs.Op) error { judge(op); return nil })
		for i := range 2 {
			b, err := s.Put(t.Context(), bytes.NewReader(content(3000+i)))
			must(t, err)
			done = append(done, b)
		}
		mem.SetHook(nil)
		judge(vfs.Op{})
	}
}
