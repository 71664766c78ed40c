//go:build linux

package real

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The disk is a process of its own: a FUSE file system with one file, which a loop device turns into a disk. It writes
// down each write and each flush in their order, so that what a power cut would have left at any time can be made
// later. Other processes see a page of its memory.

// page is what the disk and the others share.
type page struct {
	place   atomic.Uint64 // writes and flushes that were served: the length of the log in records
	armed   atomic.Uint64 // 1: the next write with failMagic in it fails
	failed  atomic.Uint64 // writes that have failed
	stalled atomic.Uint64 // 1: no write and no flush is served
}

func openPage(name string) (*page, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	at, err := unix.MmapPtr(int(f.Fd()), 0, nil, unsafe.Sizeof(page{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return (*page)(at), err
}

func (p *page) close() error { return unix.MunmapPtr(unsafe.Pointer(p), unsafe.Sizeof(page{})) }

// now is the disk's place; 0 if there is no disk.
func (p *page) now() uint64 {
	if p == nil {
		return 0
	}
	return p.place.Load()
}

func (p *page) arm() { p.armed.Store(1) }

// serve is the disk's process. It ends when its parent does.
func serve(o *order) error {
	p, err := openPage(o.Page)
	if err != nil {
		return err
	}
	image, err := os.OpenFile(o.Image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	fi, err := image.Stat()
	if err != nil {
		return err
	}
	root := &diskFolder{file: &diskFile{page: p, image: image, log: log, size: fi.Size()}}
	server, err := fs.Mount(o.Mount, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "runlog-disk", Name: "runlog-disk", MaxWrite: 1 << 20, DisableXAttrs: true,
	}})
	if err != nil {
		return err
	}
	send(os.Stdout, recOpened, 0, 0, 0, "")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // the kernel ends the connection
	}()
	server.Wait()
	return nil
}

type diskFolder struct {
	fs.Inode
	file *diskFile
}

func (d *diskFolder) OnAdd(ctx context.Context) {
	d.AddChild(diskName, d.NewPersistentInode(ctx, d.file, fs.StableAttr{}), false)
}

const diskName = "disk"

type diskFile struct {
	fs.Inode
	page  *page
	image *os.File
	size  int64

	mu  sync.Mutex // orders log and image
	log *os.File
}

func (f *diskFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(f.size)
	return 0
}

func (f *diskFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0 // no cache but the file system's on top
}

func (f *diskFile) Read(_ context.Context, _ fs.FileHandle, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := f.image.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(b[:n]), 0
}

func (f *diskFile) Write(_ context.Context, _ fs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	f.wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.page.armed.Load() == 1 && bytes.Contains(b, failMagic) {
		f.page.armed.Store(0)
		f.page.failed.Add(1)
		return 0, syscall.EIO
	}
	if _, err := f.image.WriteAt(b, off); err != nil {
		return 0, syscall.EIO
	}
	if err := f.note(off, b); err != nil {
		return 0, syscall.EIO
	}
	return uint32(len(b)), 0
}

func (f *diskFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(flush, nil); err != nil {
		return syscall.EIO
	}
	return 0
}

// wait lets a request wait while the disk stalls.
func (f *diskFile) wait() {
	for f.page.stalled.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
}

// flush is the offset of a flush in the log.
const flush = -1

// note writes a request down.
func (f *diskFile) note(off int64, b []byte) error {
	rec := binary.LittleEndian.AppendUint64(nil, uint64(off))
	rec = binary.LittleEndian.AppendUint64(rec, uint64(len(b)))
	_, err := f.log.Write(append(rec, b...))
	f.page.place.Add(1)
	return err
}

// request is a write, or a flush, that the disk has served.
type request struct {
	off  int64
	data []byte
}

// readLog reads what the disk has written down, up to a place.
func readLog(name string, place uint64) ([]request, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var log []request
	for uint64(len(log)) < place {
		if len(b) < 16 {
			return nil, fmt.Errorf("%s ends at record %d of %d", name, len(log), place)
		}
		off, n := int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:])
		log = append(log, request{off, b[16 : 16+n]})
		b = b[16+n:]
	}
	return log, nil
}

// disk is a disk from outside: a file system of its own, on a loop device, on the disk's process.
type disk struct {
	dir    string // all of its files
	image  string
	log    string
	mount  string // of the file system on it
	fuse   string
	page   *page
	pageAt string
	server *child
	kind   *fileSystem
	base   medium // before the first mount
}

// fileSystem is how to make and mount one.
type fileSystem struct {
	name    string
	bytes   int64
	mkfs    []string
	options string
}

var (
	ext4 = fileSystem{
		name: "ext4", bytes: 24 << 20,
		mkfs:    []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-O", "^resize_inode", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"},
		options: "errors=remount-ro",
	}
	xfs = fileSystem{
		name: "xfs", bytes: 300 << 20, // mkfs.xfs refuses less
		mkfs:    []string{"mkfs.xfs", "-q", "-f", "-K"},
		options: "nouuid",
	}
	fileSystems = []*fileSystem{&ext4, &xfs}
)

// format makes an empty file system in a new file.
func (k *fileSystem) format(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(k.bytes)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return tool(k.mkfs[0], append(k.mkfs[1:len(k.mkfs):len(k.mkfs)], name)...)
}

// newDisk starts a disk with a file system that is mounted.
func newDisk(dir string, kind *fileSystem) (d *disk, err error) {
	d = &disk{dir: dir, kind: kind, image: filepath.Join(dir, "image"), log: filepath.Join(dir, "log"),
		mount: filepath.Join(dir, "mount"), fuse: filepath.Join(dir, "fuse"), pageAt: filepath.Join(dir, "page")}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	for _, m := range []string{d.mount, d.fuse} {
		if err := os.Mkdir(m, 0o700); err != nil {
			return d, err
		}
	}
	if err := os.WriteFile(d.pageAt, make([]byte, unsafe.Sizeof(page{})), 0o600); err != nil {
		return d, err
	}
	if d.page, err = openPage(d.pageAt); err != nil {
		return d, err
	}
	if err := kind.format(d.image); err != nil {
		return d, err
	}
	if d.base, err = readMedium(d.image); err != nil {
		return d, err
	}
	if d.server, err = start("disk", &order{Page: d.pageAt, Image: d.image, Log: d.log, Mount: d.fuse}); err != nil {
		return d, err
	}
	if _, err := d.server.await(recOpened, 30*time.Second); err != nil {
		return d, err
	}
	if err := mountImage(filepath.Join(d.fuse, diskName), d.mount, kind, 0); err != nil {
		return d, err
	}
	return d, syncFS(d.mount)
}

// close ends the disk. Nothing may use its file system any more.
func (d *disk) close() error {
	var errs []error
	if d.page != nil {
		d.page.stalled.Store(0)
	}
	if d.server != nil {
		errs = append(errs, unmount(d.mount), unmount(d.fuse))
		d.server.stop()
	}
	if d.page != nil {
		errs = append(errs, d.page.close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// mountImage mounts a file through a new loop device, which detaches by itself when it is unmounted.
func mountImage(image, on string, kind *fileSystem, flags uintptr) error {
	loop, err := attach(image)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), on, kind.name, flags, kind.options); err != nil {
		return fmt.Errorf("mount %s: %w", kind.name, err)
	}
	return nil
}

// attach returns a loop device on a file.
func attach(image string) (*os.File, error) {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		loop, err := attachFree(control, f)
		if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) || time.Now().After(until) {
			return loop, err
		}
	}
}

// attachFree tries the next free device; EBUSY: somebody was faster.
func attachFree(control, image *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) { // a container's /dev does not follow the kernel
		if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		loop, err = os.OpenFile(name, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		_ = loop.Close()
		return nil, err
	}
	return loop, nil
}

// unmount unmounts what is mounted there, if anything is.
func unmount(dir string) error {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Unmount(dir, 0)
		switch {
		case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, os.ErrNotExist):
			return nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(until):
		default:
			return errors.Join(fmt.Errorf("unmount: %w", err), ignoreInvalid(unix.Unmount(dir, unix.MNT_DETACH)))
		}
	}
}

func ignoreInvalid(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
