package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// needsWriting skips where runlog only reads, and fails where every test has to run.
func needsWriting(t *testing.T) {
	t.Helper()
	if canWrite {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("files cannot be written on this platform")
	}
	t.Skip("runlog can only read on this platform")
}

// each runs a claim on the real file system, in a folder of its own, and on ones in memory.
func each(t *testing.T, claim func(t *testing.T, fsys FS, dir string)) {
	t.Helper()
	t.Run("OS", func(t *testing.T) {
		needsWriting(t)
		claim(t, OS, t.TempDir())
	})
	for _, sector := range []int{512, 4096, 64} {
		t.Run(fmt.Sprintf("Mem%d", sector), func(t *testing.T) {
			claim(t, NewMem(MemOptions{SectorSize: sector}), "/")
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error, name string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	if name != "" && !strings.Contains(err.Error(), name) {
		t.Fatalf("error %q does not name %q", err, name)
	}
}

func create(t testing.TB, fsys FS, name, content string) File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	write(t, f, content, 0)
	return f
}

func write(t testing.TB, f File, content string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(content), off); err != nil || n != len(content) {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
}

// content returns a file's bytes, or "absent".
func content(t testing.TB, fsys FS, name string) string {
	t.Helper()
	b, err := ReadFile(fsys, name, 1<<30)
	if errors.Is(err, fs.ErrNotExist) {
		return "absent"
	}
	must(t, err)
	return string(b)
}

func TestCreateRefusesATakenName(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, "x")
		must(t, f.Close())
		_, err := fsys.Create(name)
		wantErr(t, err, fs.ErrExist, "a")
		if f.Name() != name {
			t.Fatalf("Name is %q", f.Name())
		}
	})
}

func TestMissingNamesAreErrNotExist(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "none", "deeper")
		_, e1 := fsys.Create(name)
		_, e2 := fsys.Open(name)
		_, e3 := fsys.OpenRead(name)
		_, e4 := fsys.ReadDir(name)
		_, e5 := fsys.Stat(name)
		_, e6 := fsys.Lock(name, nil)
		for i, err := range []error{e1, e2, e3, e4, e5, e6, fsys.Remove(name), fsys.SyncDir(name),
			fsys.Rename(name, name+"2")} {
			if wantErr(t, err, fs.ErrNotExist, "deeper"); !errors.Is(err, syscall.ENOENT) {
				t.Fatalf("call %d: %v is no ENOENT", i, err)
			}
		}
		if _, held, err := fsys.LockHolder(name); held || err != nil {
			t.Fatalf("LockHolder of a missing file: %v, %v", held, err)
		}
	})
}

func TestAFileIsNoFolderAndAFolderNoFile(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		file, folder := filepath.Join(dir, "file"), filepath.Join(dir, "folder")
		must(t, create(t, fsys, file, "x").Close())
		must(t, fsys.MkdirAll(filepath.Join(folder, "sub")))
		_, err := fsys.OpenRead(folder)
		wantErr(t, err, syscall.EISDIR, "folder")
		_, err = fsys.Open(folder)
		wantErr(t, err, syscall.EISDIR, "folder")
		_, err = fsys.Lock(folder, nil)
		wantErr(t, err, syscall.EISDIR, "folder")
		_, err = fsys.ReadDir(file)
		wantErr(t, err, syscall.ENOTDIR, "file")
		_, err = fsys.Create(filepath.Join(file, "x"))
		wantErr(t, err, syscall.ENOTDIR, "file")
		_, err = fsys.Stat(filepath.Join(file, "x"))
		wantErr(t, err, syscall.ENOTDIR, "file")
		wantErr(t, fsys.MkdirAll(file), syscall.ENOTDIR, "file")
		wantErr(t, fsys.MkdirAll(filepath.Join(file, "x")), syscall.ENOTDIR, "file")
		wantErr(t, fsys.Remove(folder), syscall.ENOTEMPTY, "folder")
		wantErr(t, fsys.Rename(file, folder), fs.ErrExist, "folder")
		wantErr(t, fsys.Rename(folder, file), syscall.ENOTDIR, "folder")
		wantErr(t, fsys.Rename(folder, filepath.Join(folder, "sub", "x")), syscall.EINVAL, "folder")
	})
}

func TestNamesMoveAndVanish(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		in := func(name string) string { return filepath.Join(dir, name) }
		must(t, fsys.MkdirAll(in("d/e")))
		must(t, fsys.MkdirAll(in("d/e")))
		must(t, create(t, fsys, in("a"), "A").Close())
		must(t, create(t, fsys, in("b"), "B").Close())
		must(t, fsys.Rename(in("a"), in("b")))
		must(t, fsys.Rename(in("b"), in("b")))
		must(t, fsys.Rename(in("b"), in("d/e/c")))
		must(t, fsys.Rename(in("d/e"), in("f")))
		must(t, fsys.SyncDir(in("f")))
		must(t, fsys.Remove(in("d")))
		if got := content(t, fsys, in("f/c")); got != "A" {
			t.Fatalf("f/c holds %q", got)
		}
		must(t, create(t, fsys, in("z"), "12345").Close())
		list, err := fsys.ReadDir(dir)
		must(t, err)
		var got []string
		for _, e := range list {
			info, err := e.Info()
			must(t, err)
			if info.IsDir() != e.IsDir() || info.Mode().IsDir() != e.IsDir() || info.Name() != e.Name() {
				t.Fatalf("%s: entry and info differ", e)
			}
			got = append(got, e.Name())
		}
		if !slices.Equal(got, []string{"f", "z"}) {
			t.Fatalf("folder lists %q", got)
		}
		info, err := fsys.Stat(in("z"))
		if err != nil || info.Size() != 5 || info.IsDir() || info.Name() != "z" {
			t.Fatalf("Stat: %v, %v", info, err)
		}
	})
}

func TestAnOpenFileOutlivesItsName(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), "still here")
		must(t, fsys.Remove(filepath.Join(dir, "a")))
		b := make([]byte, 10)
		if n, err := f.ReadAt(b, 0); n != 10 || err != nil || string(b) != "still here" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		must(t, f.Close())
	})
}

func TestReadsEndWithEOF(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), "0123456789")
		defer f.Close()
		for _, c := range []struct {
			off, length int64
			want        string
			err         error
		}{
			{0, 10, "0123456789", nil}, {4, 3, "456", nil}, {8, 5, "89", io.EOF}, {10, 1, "", io.EOF}, {99, 1, "", io.EOF},
			{99, 0, "", nil},
		} {
			b := make([]byte, c.length)
			if n, err := f.ReadAt(b, c.off); err != c.err || string(b[:n]) != c.want {
				t.Errorf("%d bytes at %d: %q, %v", c.length, c.off, b[:n], err)
			}
			n, err := f.ReadAtUncached(b, c.off)
			if errors.Is(err, ErrUncachedUnsupported) {
				t.Log(err)
			} else if err != c.err || string(b[:n]) != c.want {
				t.Errorf("uncached, %d bytes at %d: %q, %v", c.length, c.off, b[:n], err)
			}
		}
	})
}

func TestWritesTruncatesAndPreallocationsFollowAModel(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), "")
		defer f.Close()
		r := rand.New(rand.NewPCG(1, 2))
		var model []byte
		grow := func(size int) {
			if size > len(model) {
				model = append(model, make([]byte, size-len(model))...)
			}
		}
		for step := range 300 {
			off, p := r.IntN(12000), make([]byte, r.IntN(5000))
			switch r.IntN(6) {
			case 0: // zeros, over whatever is there
				grow(off + len(p))
				copy(model[off:], p)
				write(t, f, string(p), int64(off))
			case 1:
				model = append(model[:min(off, len(model))], make([]byte, max(0, off-len(model)))...)
				must(t, f.Truncate(int64(off)))
			case 2:
				grow(off)
				if err := f.Preallocate(int64(off)); !errors.Is(err, ErrNotReserved) {
					must(t, err)
				}
			case 3:
				must(t, f.Datasync())
			default:
				for i := range p {
					p[i] = byte(r.Uint32())
				}
				if len(p) > 0 {
					grow(off + len(p))
					copy(model[off:], p)
				}
				write(t, f, string(p), int64(off))
			}
			size, err := f.Size()
			must(t, err)
			b := make([]byte, size)
			if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, model) {
				t.Fatalf("step %d: content differs from the model (sizes %d, %d), %v", step, size, len(model), err)
			}
			if _, err := f.ReadAtUncached(b, 0); errors.Is(err, ErrUncachedUnsupported) {
				continue
			} else if err != nil || !bytes.Equal(b, model) {
				t.Fatalf("step %d: uncached content differs, %v", step, err)
			}
		}
	})
}

func TestUncachedReadsNeedNoAlignment(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		want := make([]byte, 3<<20+1234)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		f := create(t, fsys, filepath.Join(dir, "a"), string(want))
		defer f.Close()
		must(t, f.Datasync())
		for _, c := range [][2]int{{0, len(want)}, {1, 4096}, {4095, 2}, {4096, 4096}, {4097, 2 << 20}, {3 << 20, 2000}} {
			b := make([]byte, c[1])
			n, err := f.ReadAtUncached(b, int64(c[0]))
			if errors.Is(err, ErrUncachedUnsupported) && os.Getenv("CI") == "" {
				t.Skipf("this folder's file system cannot be read past its cache: %v", err)
			}
			rest := want[c[0]:min(c[0]+c[1], len(want))]
			if !bytes.Equal(b[:n], rest) || (err == io.EOF) != (len(rest) < c[1]) || err != nil && err != io.EOF {
				t.Fatalf("%v: %d bytes, %v", c, n, err)
			}
		}
	})
}

func TestHandlesRefuseWhatTheyCannot(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, "x")
		_, e1 := f.ReadAtUncached([]byte{0}, -1)
		_, e2 := f.Map(0)
		_, e3 := f.Map(2)
		for _, err := range []error{e1, e2, e3, f.Truncate(-1), f.Preallocate(-1)} {
			wantErr(t, err, syscall.EINVAL, "a")
		}
		for _, do := range []func([]byte, int64) (int, error){f.ReadAt, f.WriteAt} {
			if _, err := do([]byte{0}, -1); err == nil {
				t.Fatal("a negative offset passed")
			}
		}
		must(t, f.Close())
		r, err := fsys.OpenRead(name)
		must(t, err)
		_, err = r.WriteAt([]byte{1}, 0)
		wantErr(t, err, syscall.EBADF, "a")
		if r.Truncate(0) == nil || r.Preallocate(100) == nil {
			t.Fatal("a file open for reading was changed")
		}
		must(t, r.Close())
		_, e1 = f.ReadAt([]byte{0}, 0)
		_, e2 = f.WriteAt([]byte{0}, 0)
		_, e3 = f.Size()
		_, e4 := f.Map(1)
		_, e5 := f.ReadAtUncached([]byte{0}, 0)
		for i, err := range []error{e1, e2, e3, e4, e5, f.Close(), f.Datasync(), f.Truncate(0), f.Preallocate(1)} {
			if errors.Is(err, ErrUncachedUnsupported) {
				continue
			}
			if !errors.Is(err, fs.ErrClosed) {
				t.Fatalf("call %d on a closed file: %v", i, err)
			}
		}
	})
}

func TestAMappingOutlivesItsFile(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), "mapped bytes")
		m, err := f.Map(6)
		must(t, err)
		must(t, f.Close())
		if string(m.Bytes()) != "mapped" {
			t.Fatalf("mapping holds %q", m.Bytes())
		}
		must(t, m.Close())
		must(t, m.Close())
	})
}

func TestALockExcludesASecondOne(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		first, err := fsys.Lock(name, []byte("a rather long first holder"))
		must(t, err)
		_, err = fsys.Lock(name, []byte("second"))
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Name != name || string(locked.Holder) != "a rather long first holder" {
			t.Fatalf("second Lock: %v", err)
		}
		if !strings.Contains(err.Error(), "a rather long first holder") {
			t.Fatalf("%q does not name the holder", err)
		}
		if by, held, err := fsys.LockHolder(name); !held || err != nil || string(by) != "a rather long first holder" {
			t.Fatalf("LockHolder: %q, %v, %v", by, held, err)
		}
		// Looking at the file, and closing it again, must not release the lock (a process's lock would go).
		if _, err := fsys.Lock(name, nil); !errors.As(err, &locked) {
			t.Fatalf("Lock after LockHolder: %v", err)
		}
		must(t, first.Close())
		if first.Close() == nil {
			t.Fatal("a lock was released twice")
		}
		if by, held, err := fsys.LockHolder(name); held || err != nil || by != nil {
			t.Fatalf("LockHolder of a free lock: %q, %v, %v", by, held, err)
		}
		third, err := fsys.Lock(name, []byte("third"))
		must(t, err)
		if got := content(t, fsys, name); got != "third" {
			t.Fatalf("lock file holds %q", got)
		}
		must(t, third.Close())
	})
}

func TestReadFileKeepsItsLimit(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		must(t, create(t, fsys, name, "12345").Close())
		if b, err := ReadFile(fsys, name, 5); err != nil || string(b) != "12345" {
			t.Fatalf("%q, %v", b, err)
		}
		if _, err := ReadFile(fsys, name, 4); err == nil {
			t.Fatal("a file over the limit was read")
		}
	})
}

func TestWriteFileAtomicReplaces(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		must(t, create(t, fsys, name+".tmp", "left over").Close())
		for _, want := range []string{"one", "two, longer", ""} {
			must(t, WriteFileAtomic(fsys, dir, name, []byte(want)))
			if got := content(t, fsys, name); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		if got := content(t, fsys, name+".tmp"); got != "absent" {
			t.Fatalf("temporary file holds %q", got)
		}
	})
}

func TestEverythingMayBeUsedConcurrently(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "shared"), "")
		defer f.Close()
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				name := filepath.Join(dir, fmt.Sprint("own", g))
				b := bytes.Repeat([]byte{byte('a' + g)}, 300)
				for range 20 {
					own := create(t, fsys, name, "x")
					if _, err := f.WriteAt(b, int64(g*300)); err != nil {
						t.Error(err)
					}
					if _, err := f.ReadAt(make([]byte, 1200), 0); err != nil && err != io.EOF {
						t.Error(err)
					}
					if m, ok := fsys.(*Mem); ok {
						m.Crash(Random(uint64(g)))
						m.Kill()
					}
					if err := errors.Join(own.Close(), fsys.Rename(name, name+"r"), fsys.SyncDir(dir),
						fsys.Remove(name+"r")); err != nil {
						t.Error(err)
					}
					runtime.Gosched()
				}
			})
		}
		wg.Wait()
		for g := range 4 {
			part := content(t, fsys, filepath.Join(dir, "shared"))[g*300:][:300]
			if part != strings.Repeat(string(rune('a'+g)), 300) {
				t.Fatalf("part %d holds %q", g, part)
			}
		}
	})
}
