package index

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

func TestFilterForgetsNoKeyAndLetsFewOthersPass(t *testing.T) {
	const each = 5000
	files, models, salts := openFiles(t, 5, 4, each)
	dir := t.TempDir()
	if err := BuildFilter(vfs.OS, dir, 5, 8, files); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFilter(vfs.OS, join(dir, FilterName(5, 8)), FilterWant{First: 5, Last: 8, Salts: ChainSalts(salts...)})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range models {
		for fp := range m.keys {
			if ok, err := f.MayContain(fp); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	}
	pass := 0
	for i := range 100000 {
		ok, err := f.MayContain(order(-1 - i))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			pass++
		}
	}
	if pass > 2500 {
		t.Errorf("%d of 100000 absent keys pass", pass)
	}
	if f.KeyCount() != 4*each || f.Range() != (Range{5, 8}) {
		t.Error(f.KeyCount(), f.Range())
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = f.MayContain(42) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := errors.Join(f.VerifyAll(), f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := f.MayContain(1); !errors.Is(err, format.ErrClosed) || !errors.Is(f.VerifyAll(), format.ErrClosed) {
		t.Error(err)
	}
}

func TestFilterIsTheSameBuiltInWindows(t *testing.T) {
	files, _, _ := openFiles(t, 1, 4, 200)
	var got [2][]byte
	for i, window := range []int64{filterWindow, 3 * blockSize} {
		f, err := newFilterBuild(1, 4, files)
		if err != nil {
			t.Fatal(err)
		}
		f.window = window
		w := &memFile{fs: newMemFS()}
		if err := f.write(w); err != nil {
			t.Fatal(err)
		}
		got[i] = w.b
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Error("windows change the bytes")
	}
}

func TestFilterOfEmptySegments(t *testing.T) {
	files, _, salts := openFiles(t, 1, 4, 0)
	fsys := newMemFS()
	if err := BuildFilter(fsys, "", 1, 4, files); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFilter(fsys, FilterName(1, 4), FilterWant{1, 4, ChainSalts(salts...)})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := f.MayContain(1); ok || err != nil || f.VerifyAll() != nil {
		t.Error(ok, err)
	}
}

func TestFilterRefusesOtherSegments(t *testing.T) {
	files, _, salts := openFiles(t, 1, 4, 10)
	fsys := newMemFS()
	for name, err := range map[string]error{
		"range":  BuildFilter(fsys, "", 2, 5, files),
		"count":  BuildFilter(fsys, "", 1, 4, files[:3]),
		"number": BuildFilter(fsys, "", 5, 8, files),
	} {
		if !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := BuildFilter(fsys, "", 1, 4, files); err != nil {
		t.Fatal(err)
	}
	good := FilterWant{1, 4, ChainSalts(salts...)}
	for _, want := range []FilterWant{{5, 8, good.Salts}, {1, 16, good.Salts}, {1, 4, good.Salts + 1}} {
		if _, err := OpenFilter(fsys, FilterName(1, 4), want); !isCorrupt(err) {
			t.Errorf("%+v: %v", want, err)
		}
	}
	if _, err := OpenFilter(fsys, "none", good); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	data := fsys.files[FilterName(1, 4)].b
	for name, change := range map[string]func(b []byte){
		"no keys":    func(b []byte) { le.PutUint64(b[fltKeys:], 0) },
		"blocks":     func(b []byte) { le.PutUint64(b[fltBlocks:], 1<<58) },
		"all blocks": func(b []byte) { le.PutUint64(b[fltBlocks:], 1<<64-1) },
	} {
		bad := bytes.Clone(data)
		change(bad)
		format.SealHeader(bad[:filterHeaderSize], format.MagicFilter, FilterVersion, good.Salts)
		if _, err := OpenFilter(withFile(bad), "x", good); !isCorrupt(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wide := make([]byte, 128)
	format.SealHeader(wide, format.MagicFilter, FilterVersion, good.Salts)
	if _, err := OpenFilter(withFile(wide), "x", good); !isCorrupt(err) {
		t.Error(err)
	}
}

func TestFilterIsWrittenWholeOrNotAtAll(t *testing.T) {
	files, _, salts := openFiles(t, 1, 4, 10)
	want := FilterWant{1, 4, ChainSalts(salts...)}
	for failAt := 1; ; failAt++ {
		fsys := newMemFS()
		fsys.failAt = failAt
		err := BuildFilter(fsys, "", 1, 4, files)
		if err == nil {
			if failAt < 6 {
				t.Errorf("only %d steps", failAt)
			}
			break
		}
		fsys.failAt = 0
		if f, err := OpenFilter(fsys, FilterName(1, 4), want); err == nil {
			if err := f.VerifyAll(); err != nil {
				t.Errorf("step %d: %v", failAt, err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("step %d: %v", failAt, err)
		}
		if fsys.files[FilterName(1, 4)+".tmp"] != nil {
			t.Errorf("step %d leaves an unfinished file", failAt)
		}
	}
}

func TestFilterIsNotBuiltFromADamagedIndex(t *testing.T) {
	files, _, _ := openFiles(t, 1, 4, 10)
	files[2].data[files[2].s.bucketsAt+9] ^= 1
	fsys := newMemFS()
	if err := BuildFilter(fsys, "", 1, 4, files); !isCorrupt(err) {
		t.Error(err)
	}
	if len(fsys.files) != 0 {
		t.Error("a file is left")
	}
}
