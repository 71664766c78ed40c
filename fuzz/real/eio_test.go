//go:build linux

package real

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
	"golang.org/x/sys/unix"
)

// TestRowEIO lets the disk fail one write of a commit. The run halts; a new process, on the same page cache, recovers and
// goes on; then the power goes. What was acknowledged must be there, and what recovery has counted, too.
func TestRowEIO(t *testing.T) {
	needs(t, needRoot, needFUSE, needLoop, "mkfs.ext4", "mkfs.xfs")
	dir := folder(t)
	var lied, ghosts, cases atomic.Int64
	matrix.Run(t, "eio", func(c *matrix.Cases) error {
		if !c.Next() {
			return nil
		}
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		cases.Add(1)
		kind := fileSystems[c.Seed%2]
		if err := oneEIO(dir, kind, rand.New(rand.NewPCG(c.Seed, 8)), &lied, &ghosts); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		return nil
	}, matrix.Workers(4), matrix.Detail(func() string {
		return fmt.Sprintf("in %d of %d the second sync lied, in %d lost entries were in the page cache", lied.Load(), cases.Load(), ghosts.Load())
	}))
}

func oneEIO(dir string, kind *fileSystem, r *rand.Rand, lied, ghosts *atomic.Int64) (err error) {
	home := filepath.Join(dir, "disk")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	d, err := newDisk(home, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	lies, err := d.lies()
	if err != nil {
		return fmt.Errorf("a plain file: %w", err)
	}
	if lies {
		lied.Add(1)
	}
	fail := 1 + r.Uint64N(60)
	first, err := start("load", &order{
		Dir: d.mount, Page: d.pageAt, Producers: 1, Pace: time.Millisecond, Fail: fail, Entries: fail + 1000, Interval: r.IntN(2) == 0,
	})
	if err != nil {
		return err
	}
	defer first.stop()
	h, err := first.checkHalt(writer.ReasonIO, unix.EIO)
	if err != nil {
		return err
	}
	if err := first.haltedForGood(h); err != nil {
		return err
	}
	if n := d.page.failed.Load(); n != 2 {
		return fmt.Errorf("%d writes have failed, want the plain file's and the run's", n)
	}
	acked, _ := first.upTo(always)
	seen := oracle.Run{Want: first.want(), Acked: acked}
	if n, err := seen.Read(vfs.OS, filepath.Join(d.mount, instance, first.run)); err != nil && !oracle.Unindexed(err) {
		return fmt.Errorf("read after the halt: %w", err)
	} else if n > h.A {
		ghosts.Add(1)
	}
	second, err := start("load", &order{Dir: d.mount, Page: d.pageAt, Producers: 1, Pace: time.Millisecond})
	if err != nil {
		return err
	}
	defer second.stop()
	err = second.awaitAcks(1 + r.IntN(30))
	second.stop()
	if err = errors.Join(err, second.failure()); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	if second.prior != first.run || second.had < acked {
		return fmt.Errorf("recovery has found %d entries of run %q, but %d of %s were acknowledged", second.had, second.prior, acked, first.run)
	}
	var history oracle.History
	first.promise(&history, always)
	second.promise(&history, always)

	place := d.page.now()
	p := player{base: d.base}
	if p.log, err = readLog(d.log, place); err != nil {
		return err
	}
	unsynced := p.to(int(place))
	if r.IntN(2) == 0 {
		unsynced = nil
	}
	s, err := newStage(dir, kind)
	if err != nil {
		return err
	}
	return s.with(p.synced.with(survivors(r, unsynced)), func(dir string) error {
		if err := judge(&history, dir, 1); err != nil {
			return fmt.Errorf("power cut: %w", err)
		}
		return nil
	})
}

// lies lets one write of a plain file fail, and reports whether only the first sync says so, while the page cache goes on
// to show what was lost: the reason for all that recovery does not believe. It is an error if not even the first one says
// so, or if the disk has the bytes.
func (d *disk) lies() (bool, error) {
	name := filepath.Join(d.mount, "plain")
	if err := os.WriteFile(name, make([]byte, 2*blockBytes), 0o600); err != nil {
		return false, err
	}
	f, err := vfs.OS.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := f.Datasync(); err != nil {
		return false, err
	}
	want := bytes.Repeat(failMagic, blockBytes/len(failMagic))
	d.page.arm()
	if _, err := f.WriteAt(want, 0); err != nil {
		return false, err
	}
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		return false, fmt.Errorf("the first sync says %v, want EIO", err)
	}
	second := f.Datasync()
	cached, direct := make([]byte, len(want)), make([]byte, len(want))
	if _, err := f.ReadAt(cached, 0); err != nil {
		return false, err
	}
	if _, err := f.ReadAtUncached(direct, 0); err != nil {
		return false, err
	}
	if len(trimZeros(direct)) > 0 {
		return false, errors.New("the disk has the bytes of the write that has failed")
	}
	return second == nil && bytes.Equal(cached, want), nil
}
