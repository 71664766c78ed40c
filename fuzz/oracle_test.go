package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/vfs"
)

// history is what was asked of the log, and what it has promised so far.
type history struct {
	want  map[string][]runlog.Entry // by run id, in order; all that was submitted
	acked map[string]uint64         // by run id: at or below the durable watermark
	exact map[string]uint64         // by run id: what an earlier recovery has found; it must not change any more
}

// judge is the oracle. It boots on what a crash has left, and returns nil if every run is a byte-exact prefix of what
// was submitted, without a gap, and holds at least what was acknowledged and exactly what an earlier recovery has
// found. A run may be missing if nothing of it was acknowledged. Nothing here damages durable bytes, so a quarantine
// is a failure too. Then it goes on as an engine would: it appends to a new run, crashes, and judges again.
func (h *history) judge(fsys *vfs.Mem, o runlog.Options, crash func(*vfs.Mem) *vfs.Mem, again int) error {
	o.FS = fsys
	run, err := runlog.Open(context.Background(), o)
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	next := &history{want: maps.Clone(h.want), acked: maps.Clone(h.acked), exact: map[string]uint64{}}
	for _, p := range run.Predecessors() {
		if _, known := h.want[p.Run]; p.Err != nil && !known && p.Status == runlog.Quarantined {
			continue // it died in Open, and garbage in its unsynced first segment cannot be told from damage
		}
		if p.Err != nil {
			return fmt.Errorf("run %s is %s: %w", p.Run, p.Status, p.Err)
		}
		n, err := prefix(fsys, filepath.Join(o.Dir, o.Instance, p.Run), h.wanted(p.Run))
		if exact, known := h.exact[p.Run]; err == nil && (n < h.acked[p.Run] || n != p.LastSeq || known && n != exact) {
			err = fmt.Errorf("it ends at seq %d; acknowledged %d, boot says %d, an earlier one %d", n, h.acked[p.Run], p.LastSeq, exact)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", p.Run, err)
		}
		next.exact[p.Run], next.acked[p.Run] = n, n
	}
	for id, n := range h.acked {
		if _, there := next.exact[id]; !there && n > 0 {
			return fmt.Errorf("run %s is not there, but seq %d was acknowledged", id, n)
		}
	}
	if again == 0 {
		return nil
	}
	next.started(run)
	if err := next.submit(run, after(run.ID())); err != nil {
		return fmt.Errorf("append after recovery: %w", err)
	}
	if err := next.judge(crash(fsys), o, crash, again-1); err != nil {
		return fmt.Errorf("recovered, appended, crashed: %w", err)
	}
	return nil
}

// wanted is what was submitted to a run. One that is not known died in Open, or while the oracle appended to it: then
// it has acknowledged nothing, but may hold some.
func (h *history) wanted(run string) []runlog.Entry {
	if w, known := h.want[run]; known {
		return w
	}
	return []runlog.Entry{{Topic: entry.TopicStarted, Type: entry.TypeStarted}, entryOf(after(run))}
}

// after is what the oracle appends to a run.
func after(run string) runlog.Draft {
	return runlog.Draft{Topic: "after", Type: "crash", Payload: []byte(run)}
}

// started notes a run that Open has returned.
func (h *history) started(run *runlog.Run) {
	h.want[run.ID()] = []runlog.Entry{{Topic: entry.TopicStarted, Type: entry.TypeStarted}}
	h.acked[run.ID()] = run.Durable()
}

// submit hands a draft to a synchronous run, which acknowledges it when it returns.
func (h *history) submit(run *runlog.Run, d runlog.Draft) error {
	h.want[run.ID()] = append(slices.Clip(h.want[run.ID()]), entryOf(d))
	_, err := run.Submit(d)
	h.acked[run.ID()] = run.Durable()
	return err
}

// prefix reads the run in dir and returns how many entries of want it holds, from the first one on.
func prefix(fsys vfs.FS, dir string, want []runlog.Entry) (n uint64, err error) {
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	last := int64(0)
	for v, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			return n, err
		}
		got := v.Clone()
		if n++; got.Seq != n || n > uint64(len(want)) {
			return n, fmt.Errorf("seq %d where %d should be, of %d submitted", got.Seq, n, len(want))
		}
		if err := same(&got, &want[n-1]); err != nil || got.TsPublish <= last {
			return n, fmt.Errorf("seq %d, published at %d after %d: %w", n, got.TsPublish, last, err)
		}
		last = got.TsPublish
	}
	return n, errors.Join(append(r.Warnings(), r.Damage())...)
}

func entryOf(d runlog.Draft) runlog.Entry {
	return runlog.Entry{
		Topic: d.Topic, Type: d.Type, Payload: bytes.Clone(d.Payload), TsInit: d.TsInit, ID: d.ID,
		CorrelationID: d.CorrelationID, CausationID: d.CausationID, Keys: slices.Clone(d.Keys),
	}
}

// same compares all that a caller gave. Lifecycle entries are runlog's own.
func same(got, want *runlog.Entry) error {
	switch {
	case got.Topic != want.Topic || got.Type != want.Type:
		return fmt.Errorf("%s/%s was submitted, %s/%s is there", want.Topic, want.Type, got.Topic, got.Type)
	case got.IsLifecycle():
		return nil
	case !bytes.Equal(got.Payload, want.Payload):
		return fmt.Errorf("the payload differs: %d bytes submitted, %d are there", len(want.Payload), len(got.Payload))
	case got.TsInit != want.TsInit || got.ID != want.ID || got.CorrelationID != want.CorrelationID ||
		got.CausationID != want.CausationID:
		return errors.New("ids or times differ")
	case !slices.Equal(got.Keys, want.Keys):
		return fmt.Errorf("the keys differ: %v submitted, %v are there", want.Keys, got.Keys)
	}
	return nil
}
