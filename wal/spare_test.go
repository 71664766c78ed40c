package wal

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// counted counts the bytes that are written to a file, and can refuse to reserve space.
type counted struct {
	vfs.File
	refuse  bool
	written int
}

func (f *counted) WriteAt(b []byte, off int64) (int, error) {
	f.written += len(b)
	return f.File.WriteAt(b, off)
}

func (f *counted) Preallocate(size int64) error {
	if f.refuse {
		if err := f.Truncate(size); err != nil {
			return err
		}
		return vfs.ErrNotReserved
	}
	return f.File.Preallocate(size)
}

func TestASpareThatSomebodyWaitsForIsReservedAndNotFilled(t *testing.T) {
	const size = 4 << 20
	head := bytes.Repeat([]byte{1}, segment.BlockSize)
	for _, c := range []struct {
		name           string
		urgent, refuse bool
		filled         bool
	}{
		{name: "in time", filled: true},
		{name: "awaited", urgent: true},
		{name: "awaited, where space cannot be reserved", urgent: true, refuse: true, filled: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, err := vfs.NewMem(vfs.MemOptions{}).Create("/spare")
			if err != nil {
				t.Fatal(err)
			}
			f := &counted{File: file, refuse: c.refuse}
			m := &spareMaker{pace: &pace{}}
			m.urgent.Store(c.urgent)
			if err := fill(f, size, head, m); err != nil {
				t.Fatal(err)
			}
			if (f.written == size+len(head)) != c.filled || !c.filled && f.written != len(head) {
				t.Errorf("%d bytes were written", f.written)
			}
			got := make([]byte, size)
			if n, err := f.ReadAt(got, 0); n != size || !bytes.Equal(got[:len(head)], head) || !allZero(got[len(head):]) {
				t.Errorf("%d bytes (%v), not the header and zeros", n, err)
			}
		})
	}
}

func TestTheFillerGivesWayWhileTheLogIsBehind(t *testing.T) {
	begin := func(m *spareMaker) (done *bool) {
		done = new(bool)
		go func() {
			m.giveWay()
			*done = true
		}()
		synctest.Wait()
		return done
	}
	settle := func() {
		time.Sleep(2 * quietLooks * fillPause)
		synctest.Wait()
	}
	synctest.Test(t, func(t *testing.T) {
		m := &spareMaker{pace: &pace{}}
		m.pace.note(behindBytes - 1)
		if done := begin(m); !*done {
			t.Error("a small commit holds it up")
			settle()
		}
		m.pace.note(behindBytes)
		done := begin(m)
		for range 1000 {
			time.Sleep(quietLooks / 2 * fillPause)
			m.pace.note(behindBytes)
		}
		if *done {
			t.Error("it goes on beside large commits")
		}
		if settle(); !*done {
			t.Error("it still waits when no commit comes any more")
		}
		for name, end := range map[string]func(){
			"a small commit": func() { m.pace.note(1) },
			"somebody waits": func() { m.urgent.Store(true) },
			"not needed":     func() { m.stop.Store(true) },
		} {
			m.pace.note(behindBytes)
			done := begin(m)
			end()
			if time.Sleep(2 * fillPause); !*done {
				t.Errorf("%s: it still waits", name)
			}
			settle()
			m.urgent.Store(false)
			m.stop.Store(false)
		}
	})
}
