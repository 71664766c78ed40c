package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

var testQuarantine = Quarantine{
	Time: 1795464168123456789, Reason: "commit 12 is proven durable, but its digest differs", File: "00000002.seg",
	Offset: 8192, FirstSeq: 11, LastSeq: 20,
}

// disk is a file system that can fail at the nth operation that changes something, and lose power.
type disk struct {
	vfs.FS
	names   map[string]*node // what processes see
	durable map[string]*node // after the last SyncDir
	renames []func(map[string]*node)
	ops     int
	failAt  int // operations from this one on fail; 0: never
	readErr map[string]error
}

type node struct{ data, synced []byte }

var errInjected = errors.New("injected")

func newDisk() *disk {
	return &disk{names: map[string]*node{}, durable: map[string]*node{}, readErr: map[string]error{}}
}

func (d *disk) op() error {
	d.ops++
	if d.failAt > 0 && d.ops >= d.failAt {
		return errInjected
	}
	return nil
}

func (d *disk) change(f func(map[string]*node)) {
	f(d.names)
	d.renames = append(d.renames, f)
}

func (d *disk) Create(name string) (vfs.File, error) {
	if err := d.op(); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, fs.ErrExist
	}
	n := &node{}
	d.change(func(m map[string]*node) { m[name] = n })
	return &file{d: d, n: n}, nil
}

func (d *disk) OpenRead(name string) (vfs.File, error) {
	if err := d.readErr[name]; err != nil {
		return nil, err
	}
	n := d.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{d: d, n: n}, nil
}

func (d *disk) Rename(a, b string) error {
	if err := d.op(); err != nil {
		return err
	}
	n := d.names[a]
	d.change(func(m map[string]*node) { delete(m, a); m[b] = n })
	return nil
}

func (d *disk) Remove(name string) error {
	if d.names[name] == nil {
		return fs.ErrNotExist
	}
	if err := d.op(); err != nil {
		return err
	}
	d.change(func(m map[string]*node) { delete(m, name) })
	return nil
}

func (d *disk) SyncDir(string) error {
	if err := d.op(); err != nil {
		return err
	}
	d.durable, d.renames = maps.Clone(d.names), nil
	return nil
}

func (d *disk) Stat(name string) (fs.FileInfo, error) {
	n := d.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return info(len(n.data)), nil
}

// crash returns the disks that a power cut can leave: any subset of the unsynced name changes, only synced content.
func (d *disk) crash() (out []*disk) {
	for subset := range 1 << len(d.renames) {
		c := newDisk()
		c.names = maps.Clone(d.durable)
		for i, f := range d.renames {
			if subset&(1<<i) != 0 {
				f(c.names)
			}
		}
		for name, n := range c.names {
			if n == nil {
				delete(c.names, name)
				continue
			}
			b := slices.Clone(n.synced)
			c.names[name] = &node{b, b}
		}
		c.durable = maps.Clone(c.names)
		out = append(out, c)
	}
	return out
}

func (d *disk) put(name string, b []byte) {
	b = slices.Clone(b)
	d.names[name] = &node{b, b}
	d.durable[name] = d.names[name]
}

type file struct {
	vfs.File
	d *disk
	n *node
}

func (f *file) Size() (int64, error) { return int64(len(f.n.data)), nil }
func (f *file) Close() error         { return nil }
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.op(); err != nil {
		f.n.data = append(f.n.data[:off], p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.n.data = append(f.n.data[:off], p...)
	return len(p), nil
}

func (f *file) Datasync() error {
	if err := f.d.op(); err != nil {
		return err
	}
	f.n.synced = slices.Clone(f.n.data)
	return nil
}

type info int

func (i info) Size() int64      { return int64(i) }
func (info) Name() string       { return "" }
func (info) Mode() fs.FileMode  { return 0 }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }

var manifestPath, prevPath = filepath.Join("r", FileName), filepath.Join("r", PrevName)

// twice returns a disk on which the second write was of an ended run.
func twice(t *testing.T) (d *disk, first, second Manifest) {
	t.Helper()
	d, first, second = newDisk(), full(), full()
	first.Status, first.Ended, first.Digest = Running, nil, ""
	for _, m := range []Manifest{first, second} {
		if err := Write(d, "r", m); err != nil {
			t.Fatal(err)
		}
	}
	return d, first, second
}

func TestWriteKeepsThePreviousCopy(t *testing.T) {
	d, first, second := twice(t)
	got, warning, err := Read(d, "r")
	if err != nil || warning != nil || !reflect.DeepEqual(got, second) {
		t.Fatalf("%+v, %v, %v", got, warning, err)
	}
	for name, damage := range map[string]func(){
		"missing":    func() { delete(d.names, manifestPath) },
		"empty":      func() { d.put(manifestPath, nil) },
		"flipped":    func() { b := mustEncode(t, second); b[len(b)/2] ^= 4; d.put(manifestPath, b) },
		"cut":        func() { b := mustEncode(t, second); d.put(manifestPath, b[:100]) },
		"other kind": func() { d.put(manifestPath, []byte("runlogSG")) },
		"too large":  func() { d.put(manifestPath, make([]byte, MaxSize+1)) },
		"unreadable": func() { d.put(manifestPath, nil); d.readErr[manifestPath] = syscall.EIO },
	} {
		damage()
		got, warning, err := Read(d, "r")
		delete(d.readErr, manifestPath)
		if err != nil || warning == nil || !strings.Contains(warning.Error(), PrevName) || !reflect.DeepEqual(got, first) {
			t.Errorf("%s: %v, %v, %v", name, got.Status, warning, err)
		}
		if name == "flipped" && !errors.Is(warning, format.ErrCorrupt) {
			t.Errorf("the warning does not say why: %v", warning)
		}
	}
}

// Even before the second write there are two copies of what only the manifest knows.
func TestFirstWriteStoresTwoCopies(t *testing.T) {
	d := newDisk()
	if err := Write(d, "r", full()); err != nil {
		t.Fatal(err)
	}
	d.put(manifestPath, []byte("garbage"))
	if got, warning, err := Read(d, "r"); err != nil || warning == nil || !reflect.DeepEqual(got, full()) {
		t.Errorf("%+v, %v, %v", got, warning, err)
	}
}

func TestReadErrors(t *testing.T) {
	newer := seal(magicManifest, 2, []byte("{}\n"))
	whole := mustEncode(t, small())
	for name, c := range map[string]struct {
		main, prev []byte
		want       error
	}{
		"nothing":                     {nil, nil, fs.ErrNotExist},
		"damaged, no copy":            {[]byte("x"), nil, format.ErrCorrupt},
		"damaged, copy damaged":       {[]byte("x"), []byte("y"), format.ErrCorrupt},
		"missing, copy damaged":       {nil, []byte("y"), format.ErrCorrupt},
		"newer, copy is older":        {newer, whole, format.ErrVersion},
		"missing, copy is newer":      {nil, newer, format.ErrVersion},
		"damaged, copy is newer":      {[]byte("x"), newer, format.ErrVersion},
		"other kind, and no copy":     {[]byte("runlogIX"), nil, format.ErrWrongKind},
		"other kind, copy is damaged": {[]byte("runlogIX"), []byte("y"), format.ErrWrongKind},
	} {
		d := newDisk()
		if c.main != nil {
			d.put(manifestPath, c.main)
		}
		if c.prev != nil {
			d.put(prevPath, c.prev)
		}
		m, warning, err := Read(d, "r")
		if !errors.Is(err, c.want) || warning != nil || !reflect.DeepEqual(m, Manifest{}) {
			t.Errorf("%s: %+v, %v, %v", name, m, warning, err)
		}
	}
	d, _, _ := twice(t)
	d.readErr[manifestPath] = fs.ErrPermission // says nothing about the content, so nothing stands in
	if _, _, err := Read(d, "r"); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	if err := Write(d, "r", full()); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

func TestWriteRefuses(t *testing.T) {
	d, _, second := twice(t)
	before := string(d.names[manifestPath].data)
	other := second
	other.Build = "other"
	if err := Write(d, "r", other); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("another identity: %v", err)
	}
	if err := Write(d, "r", Manifest{}); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("an invalid manifest: %v", err)
	}
	if string(d.names[manifestPath].data) != before {
		t.Error("the manifest changed")
	}
	d.put(manifestPath, seal(magicManifest, 2, nil))
	if err := Write(d, "r", second); !errors.Is(err, format.ErrVersion) {
		t.Errorf("a newer version was replaced: %v", err)
	}
}

func TestDamagedManifestDoesNotReplaceThePreviousCopy(t *testing.T) {
	d, first, second := twice(t)
	d.put(manifestPath, []byte("garbage"))
	if err := Write(d, "r", second); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Manifest{manifestPath: second, prevPath: first} {
		if got, err := Decode(path, d.names[path].data); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	d.put(manifestPath, []byte("garbage"))
	d.put(prevPath, []byte("garbage"))
	if err := Write(d, "r", second); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{manifestPath, prevPath} {
		if got, err := Decode(path, d.names[path].data); err != nil || !reflect.DeepEqual(got, second) {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
}

// Every operation fails or is the last one before a power cut: the old or the new manifest is there, and so is a previous
// copy that can be read.
func TestReplacementIsAtomic(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		for failAt := 1; ; failAt++ {
			if failAt > 50 {
				t.Fatal("Write never succeeds")
			}
			d, first, second := newDisk(), full(), full()
			if !fresh {
				d, first, second = twice(t)
				second.LastSeq = 100
			}
			old := full()
			d.ops, d.failAt = 0, failAt
			err := Write(d, "r", second)
			if err != nil && !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
			d.failAt = 0
			for i, after := range append(d.crash(), d) {
				what := fmt.Sprintf("fresh %v, operation %d, state %d", fresh, failAt, i)
				got, warning, rerr := Read(after, "r")
				switch {
				case err == nil:
					if rerr != nil || warning != nil || !reflect.DeepEqual(got, second) {
						t.Errorf("%s: Write returned nil, but %+v, %v, %v", what, got, warning, rerr)
					}
				case fresh:
					if !errors.Is(rerr, fs.ErrNotExist) && (rerr != nil || !reflect.DeepEqual(got, second)) {
						t.Errorf("%s: %+v, %v, %v", what, got, warning, rerr)
					}
				default:
					if rerr != nil || warning != nil || !reflect.DeepEqual(got, second) && !reflect.DeepEqual(got, old) {
						t.Errorf("%s: %+v, %v, %v", what, got, warning, rerr)
					}
					prev, _, perr := readOne(after, prevPath)
					if perr != nil || !reflect.DeepEqual(prev, first) && !reflect.DeepEqual(prev, old) {
						t.Errorf("%s: previous copy %+v, %v", what, prev, perr)
					}
				}
				// And the next write works, whatever was left behind.
				if err := Write(after, "r", second); err != nil {
					t.Errorf("%s: next write: %v", what, err)
				} else if got, warning, err := Read(after, "r"); err != nil || warning != nil || !reflect.DeepEqual(got, second) {
					t.Errorf("%s: after the next write: %+v, %v, %v", what, got, warning, err)
				}
			}
			if err == nil {
				break
			}
		}
	}
}

func TestQuarantine(t *testing.T) {
	d := newDisk()
	path := filepath.Join("r", QuarantineName)
	if q, quarantined, err := ReadQuarantine(d, "r"); quarantined || err != nil || q != (Quarantine{}) {
		t.Fatalf("%+v, %v, %v", q, quarantined, err)
	}
	if err := WriteQuarantine(d, "r", testQuarantine); err != nil {
		t.Fatal(err)
	}
	for _, after := range append(d.crash(), d) {
		if q, quarantined, err := ReadQuarantine(after, "r"); !quarantined || err != nil || q != testQuarantine {
			t.Errorf("%+v, %v, %v", q, quarantined, err)
		}
	}
	d.put(path, nil)
	if _, quarantined, err := ReadQuarantine(d, "r"); !quarantined || !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("damaged: %v, %v", quarantined, err)
	}
	d.put(path, make([]byte, MaxSize+1))
	if _, quarantined, err := ReadQuarantine(d, "r"); !quarantined || !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("too large: %v, %v", quarantined, err)
	}
	d.readErr[path] = fs.ErrPermission
	d.put(path, nil)
	if _, quarantined, err := ReadQuarantine(d, "r"); !quarantined || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable: %v, %v", quarantined, err)
	}
	long := Quarantine{Reason: strings.Repeat("x", 5000) + "\xff", File: "\xff", Offset: -1}
	if err := WriteQuarantine(newDisk(), "r", long); err != nil {
		t.Errorf("a verdict failed for its prose: %v", err)
	}
}
