//go:build linux

package real

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const blockBytes = 4096

// medium is what a disk has stored for good, by blocks; a block that is missing holds zeros.
type medium map[int64]*[blockBytes]byte

// store is a write that has reached the medium.
func (m medium) store(off int64, data []byte) {
	for len(data) > 0 {
		b := m[off/blockBytes]
		if b == nil {
			b = new([blockBytes]byte)
			m[off/blockBytes] = b
		}
		n := copy(b[off%blockBytes:], data)
		data, off = data[n:], off+int64(n)
	}
}

// with returns what the medium is after more writes, and leaves this one as it is.
func (m medium) with(pieces []request) medium {
	after := make(medium, len(m)+len(pieces))
	for n, b := range m {
		after[n] = b
	}
	fresh := map[int64]bool{}
	for _, p := range pieces {
		for n := p.off / blockBytes; n <= (p.off+int64(len(p.data))-1)/blockBytes; n++ {
			if b := after[n]; b != nil && !fresh[n] {
				own := *b
				after[n] = &own
			}
			fresh[n] = true
		}
		after.store(p.off, p.data)
	}
	return after
}

// survivors chooses which blocks of what was not flushed a power cut leaves: none, all, or any subset, in pieces of 512
// bytes or 4 KiB.
func survivors(r *rand.Rand, unsynced []request) (left []request) {
	size := int64([]int{512, blockBytes}[r.IntN(2)])
	keep := []int{0, 1, 2, 2, 2, 3, 4, 4}[r.IntN(8)] // of four
	for _, w := range unsynced {
		for off := int64(0); off < int64(len(w.data)); {
			n := min(size-(w.off+off)%size, int64(len(w.data))-off)
			if r.IntN(4) < keep {
				left = append(left, request{w.off + off, w.data[off : off+n]})
			}
			off += n
		}
	}
	return left
}

// player goes through what a disk has written down.
type player struct {
	base   medium // before
	log    []request
	synced medium // all up to the last flush before at
	flush  int    // the place behind that
	at     int
}

// to goes to a place and returns what was not flushed there. Going back, it begins anew.
func (p *player) to(at int) (unsynced []request) {
	if p.synced == nil || at < p.at {
		p.synced, p.flush, p.at = medium{}, 0, 0
		for n, b := range p.base {
			own := *b
			p.synced[n] = &own
		}
	}
	for ; p.at < at; p.at++ {
		if p.log[p.at].off != flush {
			continue
		}
		for _, w := range p.log[p.flush:p.at] {
			p.synced.store(w.off, w.data)
		}
		p.flush = p.at + 1
	}
	return p.log[p.flush:at]
}

// stage is where what a power cut has left is mounted, one after the other.
type stage struct {
	image, mount string
	kind         *fileSystem
}

func newStage(dir string, kind *fileSystem) (*stage, error) {
	s := &stage{image: filepath.Join(dir, "cut"), mount: filepath.Join(dir, "cut-mount"), kind: kind}
	if err := os.WriteFile(s.image, nil, 0o600); err != nil {
		return nil, err
	}
	return s, os.Mkdir(s.mount, 0o700)
}

// errUnmountable: the file system itself did not survive.
var errUnmountable = errors.New("the file system cannot be mounted")

// with mounts a medium and calls judge with the mount.
func (s *stage) with(m medium, judge func(dir string) error) (err error) {
	if err := m.write(s.image, s.kind.bytes); err != nil {
		return err
	}
	if err := mountImage(s.image, s.mount, s.kind, 0); err != nil {
		return fmt.Errorf("%w: %w", errUnmountable, err)
	}
	defer func() { err = errors.Join(err, unmount(s.mount)) }()
	return judge(s.mount)
}

// write makes an image file hold the medium and nothing else.
func (m medium) write(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil {
		return err
	}
	for n, b := range m {
		if *b == ([blockBytes]byte{}) {
			continue
		}
		if _, err := f.WriteAt(b[:], n*blockBytes); err != nil {
			return err
		}
	}
	return nil
}

// readMedium reads an image file.
func readMedium(name string) (medium, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := medium{}
	for at := int64(0); ; {
		from, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		b := make([]byte, to-from)
		if _, err := f.ReadAt(b, from); err != nil {
			return nil, err
		}
		for n := from / blockBytes; n*blockBytes < to; n++ {
			piece := b[n*blockBytes-from : min((n+1)*blockBytes, to)-from]
			if len(trimZeros(piece)) > 0 {
				m.store(n*blockBytes, piece)
			}
		}
		at = to
	}
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
