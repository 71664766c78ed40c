//go:build linux

package real

import (
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
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
	"golang.org/x/sys/unix"
)

// TestRowENOSPC lets a process fill a small tmpfs, or write under a limit of file sizes, until its run halts. When there
// is space again, the next one opens.
func TestRowENOSPC(t *testing.T) {
	needs(t, needRoot)
	dir := folder(t)
	var refused, entries atomic.Int64
	matrix.Run(t, "enospc", func(c *matrix.Cases) (err error) {
		if !c.Next() {
			return nil
		}
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		r := rand.New(rand.NewPCG(c.Seed, 10))
		o := order{Dir: dir, Segment: 64 << 10 << r.IntN(4), Producers: 2, Big: r.IntN(2) * 4000}
		cause := unix.ENOSPC
		if c.Seed%2 == 0 {
			cause, o.Segment = unix.EFBIG, 1<<20
			o.MaxFile = 200<<10 + uint64(r.IntN(400<<10)) // the third segment is of 1 MiB
		} else {
			size := fmt.Sprintf("size=%dk", 1024+r.IntN(3<<10))
			if err := unix.Mount("runlog-full", dir, "tmpfs", 0, size); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, unmount(dir)) }()
		}
		return filled(&o, cause, &refused, &entries)
	}, matrix.Detail(func() string {
		return fmt.Sprintf("%d entries acknowledged before; %d were refused to open while it was full", entries.Load(), refused.Load())
	}))
}

func filled(o *order, cause syscall.Errno, refused, entries *atomic.Int64) error {
	first, err := start("load", o)
	if err != nil {
		return err
	}
	defer first.stop()
	h, err := first.checkHalt(writer.ReasonDiskFull, cause)
	if err != nil {
		return err
	}
	if err := first.haltedForGood(h); err != nil {
		return err
	}
	entries.Add(int64(len(first.acks)))
	var history oracle.History
	first.promise(&history, always)
	if cause == unix.ENOSPC { // open while it is full: it may work, or say why not
		second, err := start("load", o)
		if err != nil {
			return err
		}
		defer second.stop()
		for opened := false; !opened; time.Sleep(time.Millisecond) {
			if rec, ok := second.said(recFailed, 0); ok {
				if syscall.Errno(rec.A) != cause {
					return fmt.Errorf("open on a full disk: %s", rec.Text)
				}
				refused.Add(1)
				break
			}
			select {
			case <-second.ended:
				return fmt.Errorf("open on a full disk: the child has ended: %w", second.failure())
			default:
			}
			_, opened = second.said(recOpened, 0)
		}
		second.stop()
		if err := second.failure(); err != nil {
			return err
		}
		second.promise(&history, always)
		if err := unix.Mount("", o.Dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
			return err
		}
	}
	if err := judge(&history, o.Dir, 1); err != nil {
		return fmt.Errorf("there is space again: %w", err)
	}
	m, _, err := manifest.Read(vfs.OS, filepath.Join(o.Dir, instance, first.run))
	if err != nil {
		return err
	}
	if m.Halt == nil || m.Halt.Reason != manifest.ReasonDiskFull || m.Halt.Durable != h.A {
		return fmt.Errorf("the run halted at %d since the disk was full; its manifest says %+v", h.A, m.Halt)
	}
	return nil
}
