//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
)

// atOnce is how long a refusal may take on a busy machine. It waits for nothing.
const atOnce = 2 * time.Second

// TestRowOpeners lets several processes open the same instance: one gets it, the others are refused at once and told who
// has it. The one is killed; the next Open gets the instance without waiting, and recovers the run.
func TestRowOpeners(t *testing.T) {
	dir := folder(t)
	var entries, raced atomic.Int64
	matrix.Run(t, "openers", func(c *matrix.Cases) error {
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		r := rand.New(rand.NewPCG(c.Seed, 11))
		var history oracle.History
		for range 5 {
			if !c.Next() {
				return nil
			}
			n := 1
			if r.IntN(4) == 0 {
				n = 3
				raced.Add(1)
			}
			owner, err := race(dir, n)
			if err != nil {
				return err
			}
			err = errors.Join(owner.awaitAcks(1+r.IntN(20)), refusal(dir, owner))
			owner.stop()
			if err = errors.Join(err, owner.failure()); err != nil {
				return err
			}
			entries.Add(int64(len(owner.acks)))
			owner.promise(&history, always)
			if err := judge(&history, dir, 0); err != nil {
				return fmt.Errorf("after SIGKILL: %w", err)
			}
		}
		return nil
	}, matrix.Detail(func() string {
		return fmt.Sprintf("%d entries acknowledged, in %d cases three began at the same time", entries.Load(), raced.Load())
	}))
}

// race starts n processes at the same time and returns the one that has got the instance.
func race(dir string, n int) (owner *child, err error) {
	var all []*child
	defer func() {
		for _, c := range all {
			if c != owner || err != nil {
				c.stop()
				err = errors.Join(err, c.failure())
			}
		}
	}()
	for range n {
		c, err := start("load", &order{Dir: dir, Producers: 1, Pace: time.Millisecond})
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	refused := 0
	for until := time.Now().Add(time.Minute); owner == nil || refused < n-1; time.Sleep(time.Millisecond) {
		owner, refused = nil, 0
		for _, c := range all {
			if _, ok := c.said(recOpened, 0); ok {
				if owner != nil {
					return nil, errors.New("two processes have opened the instance")
				}
				owner = c
			}
			if rec, ok := c.said(recFailed, 0); ok {
				if !strings.Contains(rec.Text, runlog.ErrLocked.Error()) {
					return nil, fmt.Errorf("refused, but not since it is locked: %s", rec.Text)
				}
				refused++
			}
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("of %d processes %d were refused in a minute", n, refused)
		}
	}
	return owner, nil
}

// refusal opens the instance here, while another process has it.
func refusal(dir string, owner *child) error {
	began := time.Now()
	run, err := runlog.Open(context.Background(), (&order{Dir: dir}).options())
	took := time.Since(began)
	if err == nil {
		return errors.Join(errors.New("two processes have opened the instance"), run.Close(context.Background()))
	}
	host, herr := os.Hostname()
	pid := fmt.Sprintf("pid %d ", owner.cmd.Process.Pid)
	if herr != nil || !errors.Is(err, runlog.ErrLocked) || !strings.Contains(err.Error(), pid) || !strings.Contains(err.Error(), host) {
		return fmt.Errorf("want %w by %son %s: %w", runlog.ErrLocked, pid, host, err)
	}
	if took > atOnce {
		return fmt.Errorf("refused after %v", took)
	}
	return nil
}
