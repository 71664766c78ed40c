//go:build linux

package real

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/writer"
)

// Thresholds of the runs on the disk that stalls. The slack is what a busy machine may add before the halt is heard of.
const (
	warnAfter = 400 * time.Millisecond
	haltAfter = 1500 * time.Millisecond
	slack     = 3 * time.Second
)

// TestRowSlowDisk lets the disk serve no write and no flush any more while a process writes. Its run says so, then halts;
// nothing is
// acknowledged meanwhile. Then the disk goes on: what a caller is told is durable now, is. A new process opens.
func TestRowSlowDisk(t *testing.T) {
	needs(t, needRoot, needFUSE, needLoop, "mkfs.ext4", "mkfs.xfs")
	dir := folder(t)
	var slowest atomic.Int64
	matrix.Run(t, "slow-disk", func(c *matrix.Cases) error {
		if !c.Next() {
			return nil
		}
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		kind := fileSystems[c.Seed%2]
		defer os.RemoveAll(dir)
		if err := oneStall(dir, kind, rand.New(rand.NewPCG(c.Seed, 9)), &slowest); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		return nil
	}, matrix.Workers(5), matrix.Detail(func() string {
		return fmt.Sprintf("the slowest halt came %v after the threshold of %v", time.Duration(slowest.Load()).Round(time.Millisecond), haltAfter)
	}))
}

func oneStall(dir string, kind *fileSystem, r *rand.Rand, slowest *atomic.Int64) (err error) {
	d, err := newDisk(dir, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	first, err := start("load", &order{
		Dir: d.mount, Page: d.pageAt, Producers: 2, Pace: time.Millisecond, WarnAfter: warnAfter, HaltAfter: haltAfter, Interval: r.IntN(2) == 0,
	})
	if err != nil {
		return err
	}
	defer func() {
		d.page.stalled.Store(0) // or the child cannot die
		first.stop()
	}()
	if err := first.awaitAcks(1 + r.IntN(100)); err != nil {
		return err
	}
	began := time.Now()
	d.page.stalled.Store(1)
	h, err := first.checkHalt(writer.ReasonStall)
	if err != nil {
		return err
	}
	took, stalled := time.Since(began)-haltAfter, time.Duration(h.C)
	if took < 0 || took > slack || stalled < haltAfter || stalled > haltAfter+slack {
		return fmt.Errorf("halted %v after the disk stalled, and says that it was %v; the threshold is %v", took+haltAfter, stalled, haltAfter)
	}
	for was := slowest.Load(); int64(took) > was && !slowest.CompareAndSwap(was, int64(took)); was = slowest.Load() {
	}
	warned := first.last(recWarn)
	if warned == nil || warned.A != h.A {
		return fmt.Errorf("want a warning, and nothing durable since: %v, halted at %d", warned, h.A)
	}
	time.Sleep(time.Duration(r.Int64N(int64(50 * time.Millisecond))))
	if err := first.ackedUpTo(h.A); err != nil {
		return fmt.Errorf("while the disk stalls: %w", err)
	}
	d.page.stalled.Store(0)
	durable, err := first.finish()
	if err != nil {
		return err
	}
	second, err := start("load", &order{Dir: d.mount, Page: d.pageAt, Producers: 1})
	if err != nil {
		return err
	}
	defer second.stop()
	err = second.awaitAcks(1)
	second.stop()
	if err = errors.Join(err, second.failure()); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	var history oracle.History
	history.Promise(first.run, first.want(), durable) // a halted run still writes what it can, once the disk answers
	second.promise(&history, always)
	return judge(&history, d.mount, 1)
}

// last returns the last record of a kind so far; nil: there is none.
func (c *child) last(what uint64) (last *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.all {
		if c.all[i].What == what {
			last = &c.all[i]
		}
	}
	return last
}
