package vfs

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MemOptions describe the disk of a Mem. The zero value is an unlimited disk of 512-byte sectors.
type MemOptions struct {
	// SectorSize is the number of bytes that the disk writes whole or not at all: 512 and 4096 are what disks have,
	// smaller ones tear harder. Zero means 512; others are rounded up to a power of two, at most 64 KiB.
	SectorSize int
	// Capacity is the space for file contents in bytes, counted in whole sectors; what goes beyond fails with ENOSPC.
	// Zero means no limit.
	Capacity int64
	// Garbage lets a power cut turn a lost sector into garbage (noise, or stale bytes of another sector of the file) if
	// what the disk holds there is all zeros or behind the end of the file.
	Garbage bool
	// StaleReserved lets a power cut turn to garbage what Preallocate has reserved and no sync has covered a write to, as where a
	// file system loses track of what was never written. The first one decides: what nobody writes to stays what it is then.
	StaleReserved bool
	// WriteThrough: the device has no volatile cache, so that what ReadAtUncached makes the kernel write is durable.
	// By default that waits for a Datasync.
	WriteThrough bool
}

// Mem is a file system in memory that knows what its disk would hold after a power cut.
//
// Each file has two contents: the one that reads see, which plays the page cache, and the one on disk. A write changes
// the first; every sector remembers all versions written to it since the last Datasync, and Crash may find any of them
// on the disk, or the old one, independently of all other sectors. A sector is written whole or not at all; one that
// holds durable data never turns into garbage: that is what runlog assumes of a device. The size of a file is metadata
// with the same property: all sizes since the last Datasync are possible. Cutting a file short is atomic: either the
// old size with the old bytes, or the new size without them.
//
// Creating, renaming and removing change the names that programs see; on disk they wait for SyncDir. Until then each
// file or folder is, after a crash, in any of the places it had since, or gone if it had none that was durable. A
// rename is atomic: a replaced file's name means the old or the new file. A rename across two folders is made durable
// by a SyncDir of either, as by a journal. A file whose name is lost is gone, whatever was synced, and so is what is in
// a lost folder.
//
// After a failed WriteAt (EIO) or Datasync the bytes stay in the cache and count as clean, as on Linux: reads return
// them, the next Datasync returns nil, and the disk never sees them. ReadAtUncached does tell. A failed SyncDir changes
// nothing: kernels stop a file system that cannot write its metadata.
//
// Names are slash-separated; relative ones start at the root, which is there from the start. All methods are safe for
// concurrent use. Mem keeps no times: files are as old as time itself.
type Mem struct {
	opt     MemOptions // SectorSize is resolved
	counter opCounter  // has its own lock, so that a stalled operation holds nothing

	mu       sync.Mutex // guards what follows and everything reachable from it
	root     *node
	pending  []*node // nodes with moves, in order of their first
	lastMove uint64
	used     int64 // bytes allocated by files that are linked or open
}

var _ FS = (*Mem)(nil)

// node is a file or a folder.
type node struct {
	file    *inode           // nil for a folder
	entries map[string]*node // a folder's names as programs see them
	onDisk  map[string]claim // a folder's names as the disk has them

	parent *node // where programs see it; nil when removed, or the root
	name   string
	home   place   // where the disk has it
	moves  []place // where it was put since, oldest first; a crash picks one of these or home

	opens  int
	locked bool
}

// claim is a durable name: of two nodes that were put in the same place the later one has it.
type claim struct {
	node *node // nil: it has left again, but older moves to that place are still pending
	seq  uint64
}

// place is a node's name at some time.
type place struct {
	dir  *node // nil: nowhere
	name string
	left *node // the folder that it came from, if any: syncing that makes the move durable too
	seq  uint64
	took bool // another node had the name
}

// NewMem returns an empty file system.
func NewMem(opt MemOptions) *Mem {
	if opt.SectorSize <= 0 {
		opt.SectorSize = 512
	}
	opt.SectorSize = 1 << bits.Len(uint(min(opt.SectorSize, 1<<16)-1))
	return &Mem{opt: opt, root: newFolder()}
}

func newFolder() *node { return &node{entries: map[string]*node{}, onDisk: map[string]claim{}} }

func (m *Mem) newFile() *node { return &node{file: newInode(int64(m.opt.SectorSize))} }

// SetCapacity changes MemOptions.Capacity; what is there already stays.
func (m *Mem) SetCapacity(capacity int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opt.Capacity = capacity
}

// Used returns how many bytes of the capacity are allocated.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

func cleanName(name string) string { return path.Clean("/" + filepath.ToSlash(name)) }

// find returns the node of a name; m.mu is held.
func (m *Mem) find(op, name string) (*node, error) {
	n := m.root
	for part := range strings.SplitSeq(cleanName(name)[1:], "/") {
		if part == "" {
			continue // the root itself
		}
		if n.file != nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		if n = n.entries[part]; n == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
	}
	return n, nil
}

// findFolder is find for names that must be folders.
func (m *Mem) findFolder(op, name string) (*node, error) {
	n, err := m.find(op, name)
	if err == nil && n.file != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return n, err
}

// split returns the folder that name is in, or would be, and the last part of name; m.mu is held.
func (m *Mem) split(op, name string) (dir *node, base string, err error) {
	up, base := path.Split(cleanName(name))
	if base == "" {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.EBUSY} // the root
	}
	if dir, err = m.findFolder(op, up); err != nil {
		var pe *fs.PathError
		errors.As(err, &pe)
		pe.Path = name // what the caller asked for
	}
	return dir, base, err
}

// put gives n a new place, or none (dir nil); m.mu is held. A node that had the name stays on disk until n's move is
// durable, so its loss is not recorded as a move of its own.
func (m *Mem) put(n, dir *node, base string) {
	m.lastMove++
	if len(n.moves) == 0 {
		m.pending = append(m.pending, n)
	}
	took := dir != nil && dir.entries[base] != nil
	n.moves = append(n.moves, place{dir: dir, name: base, left: n.parent, seq: m.lastMove, took: took})
	if n.parent != nil {
		delete(n.parent.entries, n.name)
	}
	n.parent, n.name = dir, base
	if dir == nil {
		m.release(n)
		return
	}
	if took {
		old := dir.entries[base]
		old.parent = nil
		m.release(old)
	}
	dir.entries[base] = n
}

// release frees the space of a file that has neither a name nor a handle; m.mu is held.
func (m *Mem) release(n *node) {
	if n.file != nil && n.parent == nil && n.opens == 0 {
		m.used -= n.file.alloc.cut(0) * n.file.ss
	}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	if ft := m.begin(Op{Kind: OpCreate, Name: name}); ft != nil {
		return nil, at("create", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.split("create", name)
	if err != nil {
		return nil, err
	}
	if dir.entries[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	n := m.newFile()
	m.put(n, dir, base)
	return m.handle(n, name, true), nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, true) }

// OpenRead implements FS.
func (m *Mem) OpenRead(name string) (File, error) { return m.open(name, false) }

func (m *Mem) open(name string, writable bool) (File, error) {
	if ft := m.begin(Op{Kind: OpOpen, Name: name}); ft != nil {
		return nil, at("open", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.file == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return m.handle(n, name, writable), nil
}

func (m *Mem) handle(n *node, name string, writable bool) *memFile {
	n.opens++
	return &memFile{m: m, n: n, name: name, writable: writable}
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	fail := func(err error) error { return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err} }
	if ft := m.begin(Op{Kind: OpRename, Name: oldName, NewName: newName}); ft != nil {
		return fail(ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("rename", oldName)
	if err != nil {
		return fail(err)
	}
	dir, base, err := m.split("rename", newName)
	if err != nil {
		return fail(err)
	}
	for up := dir; up != nil; up = up.parent {
		if up == n {
			return fail(syscall.EINVAL) // a folder into itself
		}
	}
	switch old := dir.entries[base]; {
	case old == n:
		return nil
	case old != nil && old.file == nil:
		return fail(syscall.EEXIST)
	case old != nil && n.file == nil:
		return fail(syscall.ENOTDIR)
	}
	m.put(n, dir, base)
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	if ft := m.begin(Op{Kind: OpRemove, Name: name}); ft != nil {
		return at("remove", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("remove", name)
	switch {
	case err != nil:
		return err
	case n == m.root:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.EBUSY}
	case len(n.entries) > 0:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	m.put(n, nil, "")
	return nil
}

// MkdirAll implements FS. Each folder made is an OpMkdir and an OpSyncDir.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	_, err := m.findFolder("mkdir", dir)
	m.mu.Unlock()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	up := path.Dir(cleanName(dir))
	if err := m.MkdirAll(up); err != nil {
		return err
	}
	if ft := m.begin(Op{Kind: OpMkdir, Name: dir}); ft != nil {
		return at("mkdir", dir, ft.err)
	}
	if err := m.mkdir(dir); err != nil {
		return err
	}
	return m.SyncDir(up)
}

func (m *Mem) mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.split("mkdir", name)
	if err != nil {
		return err
	}
	if dir.entries[base] == nil { // else somebody else made it since
		m.put(newFolder(), dir, base)
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]fs.DirEntry, error) {
	if ft := m.begin(Op{Kind: OpReadDir, Name: dir}); ft != nil {
		return nil, at("readdir", dir, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.findFolder("readdir", dir)
	if err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, 0, len(d.entries))
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		list = append(list, fs.FileInfoToDirEntry(d.entries[name].info(name)))
	}
	return list, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	if ft := m.begin(Op{Kind: OpStat, Name: name}); ft != nil {
		return nil, at("stat", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(cleanName(name))), nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	if ft := m.begin(Op{Kind: OpSyncDir, Name: dir}); ft != nil {
		return at("syncdir", dir, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.findFolder("syncdir", dir)
	if err != nil {
		return err
	}
	// A move that touches the folder carries the node's earlier ones with it. The order of moves decides who has a name.
	type landing struct {
		n *node
		p place
	}
	var land []landing
	for _, n := range m.pending {
		for i, p := range slices.Backward(n.moves) {
			if p.dir == d || p.left == d {
				for _, p := range n.moves[:i+1] {
					land = append(land, landing{n, p})
				}
				n.moves = n.moves[i+1:]
				break
			}
		}
	}
	slices.SortFunc(land, func(a, b landing) int { return cmp.Compare(a.p.seq, b.p.seq) })
	for _, l := range land {
		l.n.settleAt(l.p)
	}
	m.pending = slices.DeleteFunc(m.pending, func(n *node) bool { return len(n.moves) == 0 })
	maps.DeleteFunc(d.onDisk, func(_ string, c claim) bool { return c.node == nil }) // no older move is left
	return nil
}

// settleAt makes p the node's place on disk.
func (n *node) settleAt(p place) {
	if h := n.home; h.dir != nil {
		h.dir.onDisk[h.name] = claim{seq: h.seq} // whoever had the name before does not get it back
	}
	n.home = place{}
	if p.dir == nil {
		return
	}
	old := p.dir.onDisk[p.name]
	if old.seq > p.seq {
		return // replaced since, and that is durable already
	}
	if old.node != nil {
		old.node.home = place{}
	}
	p.dir.onDisk[p.name] = claim{n, p.seq}
	n.home = p
}

// Lock implements FS.
func (m *Mem) Lock(name string, holder []byte) (io.Closer, error) {
	if ft := m.begin(Op{Kind: OpLock, Name: name}); ft != nil {
		return nil, at("lock", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.split("lock", name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		n = m.newFile()
		m.put(n, dir, base)
	case n.file == nil:
		return nil, &fs.PathError{Op: "lock", Path: name, Err: syscall.EISDIR}
	case n.locked:
		return nil, &LockedError{Name: name, Holder: n.holder()}
	}
	m.truncate(n, 0)
	if k := m.allocate(n, 0, int64(len(holder))); k < int64(len(holder)) {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: syscall.ENOSPC}
	}
	n.file.write(holder, 0)
	n.locked = true
	n.opens++
	return &memLock{m: m, n: n}, nil
}

func (n *node) holder() []byte {
	b := make([]byte, min(n.file.size, maxHolderBytes))
	n.file.read(b, 0, inCache)
	return b
}

// LockHolder implements FS.
func (m *Mem) LockHolder(name string) (holder []byte, held bool, err error) {
	if ft := m.begin(Op{Kind: OpLockHolder, Name: name}); ft != nil {
		return nil, false, at("lockholder", name, ft.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("lockholder", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil || !n.locked {
		return nil, false, err
	}
	return n.holder(), true, nil
}

type memLock struct {
	m *Mem
	n *node // nil once released; guarded by m.mu
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.n == nil {
		return fs.ErrClosed
	}
	l.n.locked = false
	l.n.opens--
	l.m.release(l.n)
	l.n = nil
	return nil
}

// memInfo describes a node at one moment.
type memInfo struct {
	name string
	size int64
	dir  bool
}

func (n *node) info(name string) memInfo {
	if n.file == nil {
		return memInfo{name: name, dir: true}
	}
	return memInfo{name: name, size: n.file.size}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }

func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
