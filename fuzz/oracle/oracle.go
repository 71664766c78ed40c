// Package oracle judges what a fault has left of an instance's runs. Every fault test of runlog uses this one judge.
package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// History is what was asked of an instance's runs, by run id, and what they have promised so far. Its zero value is
// empty. A run that it does not know has promised nothing: it died in Open, or while the oracle appended to it.
type History struct {
	Runs      map[string]Run
	Damaged   bool // durable bytes were damaged: a run may also be refused, with an error that says where
	Unindexed bool // an index could not be written: it may be missing even after recovery

	Gone map[string]bool // runs that a retention may have removed
}

// Run is what one run was asked to hold. Its durable watermark is at least Acked.
type Run struct {
	Want  func(got *runlog.Entry) (runlog.Entry, error) // what should be at got.Seq, or why nothing should
	Acked uint64
	Exact *uint64 // what an earlier recovery has found: it must not change any more

	Notes func() []entry.Note // what was submitted between the entries; nil: nothing is known of notes
	Noted int                 // how many of them are acknowledged

	Begins []uint64 // the seqs that it may begin at, if a retention has been at it; nil: 1. Read leaves the one that it has found
}

// Judge boots on what a fault has left and returns nil if every run is a byte-exact prefix of what was submitted,
// without a gap, and holds all that was acknowledged, or (if Damaged) says with a typed error where it is damaged while
// no byte of its segments changes. Then it does what an engine does: it appends to a new run; and again times it
// crashes, and judges that. crash gives what the crash leaves; nil: the run is closed.
func (h *History) Judge(fsys vfs.FS, o runlog.Options, again int, crash func(vfs.FS) vfs.FS) error {
	o.FS = fsys
	instance := filepath.Join(o.Dir, o.Instance)
	before := map[string][]byte{}
	if h.Damaged {
		before = segmentBytes(fsys, instance)
	}
	run, err := runlog.Open(context.Background(), o)
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	next := &History{Runs: map[string]Run{}, Damaged: h.Damaged, Unindexed: h.Unindexed, Gone: h.Gone}
	maps.Copy(next.Runs, h.Runs)
	there := map[string]bool{}
	for _, p := range run.Predecessors() {
		there[p.Run] = true
		was, known := h.Runs[p.Run]
		if !known {
			was.Want = Ordered(Started, EntryOf(After(p.Run)), Ended)
		}
		dir := filepath.Join(instance, p.Run)
		n, err := was.Read(fsys, dir)
		if h.Unindexed && Unindexed(err) {
			err = nil
		}
		switch {
		case h.Damaged && (p.Err != nil || err != nil):
			err = errors.Join(located(p.Err, dir), located(err, dir))
			if p.Err != nil { // else boot has sealed it, as far as it has read
				err = errors.Join(err, unchanged(fsys, dir, before))
			}
		case p.Err != nil:
			err = fmt.Errorf("it is %s: %w", p.Status, p.Err)
		case err == nil && n != p.LastSeq:
			err = fmt.Errorf("it holds %d entries, and boot says %d", n, p.LastSeq)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", p.Run, err)
		}
		was.Exact = &n
		next.Runs[p.Run] = was
	}
	for id, was := range h.Runs {
		if was.Acked > 0 && !there[id] && !h.Gone[id] {
			return fmt.Errorf("run %s is not there, but seq %d was acknowledged", id, was.Acked)
		}
	}
	if again == 0 && crash == nil {
		return run.Abandon(context.Background(), errors.New("judged")) // so that a real file system can be unmounted
	}
	if again == 0 {
		return nil
	}
	next.Runs[run.ID()] = Run{Want: Ordered(Started, EntryOf(After(run.ID())), Ended), Acked: 2}
	if _, err := run.Append(context.Background(), After(run.ID())); err != nil {
		return fmt.Errorf("append after recovery: %w", err)
	}
	if crash != nil {
		fsys = crash(fsys)
	} else if err := run.Close(context.Background()); err != nil {
		return fmt.Errorf("close after recovery: %w", err)
	}
	if err := next.Judge(fsys, o, again-1, crash); err != nil {
		return fmt.Errorf("recovered, appended, crashed: %w", err)
	}
	return nil
}

// Read reads a run from end to end without changing it, and returns how many entries it holds: an unbroken, byte-exact
// prefix of what was submitted, and at least what was acknowledged. After an error the prefix is as true, but shorter.
// Entries in front of where it may begin are counted as if they were there.
func (r *Run) Read(fsys vfs.FS, dir string) (n uint64, err error) {
	reader, err := runlog.OpenReader(dir, runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	first := reader.FirstSeq()
	if first != 1 && !slices.Contains(r.Begins, first) || first == 1 && r.Begins != nil && !slices.Contains(r.Begins, 1) {
		return 0, False("it begins at seq %d, want one of %v", first, r.Begins)
	}
	n, r.Begins = first-1, []uint64{first}
	published := int64(math.MinInt64)
	for v, err := range reader.Scan(runlog.ScanOptions{}) {
		if err != nil {
			return n, err
		}
		got := v.Clone()
		if n++; got.Seq != n || got.TsPublish <= published {
			return n, False("seq %d, published at %d, follows seq %d of %d", got.Seq, got.TsPublish, n-1, published)
		}
		published = got.TsPublish
		want, err := r.Want(&got)
		if err == nil {
			err = same(&got, &want)
		}
		if err != nil {
			return n, False("seq %d: %w", n, err)
		}
	}
	if r.Notes != nil && reader.Damage() == nil {
		if err := r.readNotes(reader); err != nil {
			return n, err
		}
	}
	damage := reader.Damage()
	if damage == nil && n < r.Acked {
		return n, False("it ends at seq %d, and %d was acknowledged", n, r.Acked)
	}
	if damage == nil && r.Exact != nil && n != *r.Exact {
		return n, False("it ends at seq %d, and an earlier recovery has found %d", n, *r.Exact)
	}
	return n, errors.Join(append(reader.Warnings(), damage)...)
}

// readNotes reads all notes in the order of the log, and those that are indexed by the indexes: an unbroken prefix of what
// was submitted, each behind its entry, and at least what was acknowledged.
func (r *Run) readNotes(reader *runlog.Reader) error {
	all := r.Notes()
	there := 0
	for note, err := range reader.Notes(wal.NoteOptions{}) {
		switch {
		case err != nil:
			return err
		case there == len(all):
			return False("a note too many: %s behind seq %d", note.Kind, note.After)
		case note.Kind != all[there].Kind || note.After != all[there].After || !bytes.Equal(note.Body, all[there].Body):
			return False("note %d is %s behind seq %d, and %s behind %d was submitted", there, note.Kind, note.After, all[there].Kind, all[there].After)
		}
		there++
	}
	if there < r.Noted {
		return False("%d notes are there, and %d were acknowledged", there, r.Noted)
	}
	indexed := slices.DeleteFunc(slices.Clone(all[:there]), func(n entry.Note) bool { return !n.Kind.Indexed() })
	for note, err := range reader.Notes(wal.NoteOptions{Reverse: true}) {
		last := len(indexed) - 1
		if err != nil {
			return err
		}
		if last < 0 || note.Kind != indexed[last].Kind || note.After != indexed[last].After || !bytes.Equal(note.Body, indexed[last].Body) {
			return False("the indexes lead to %s behind seq %d", note.Kind, note.After)
		}
		indexed = indexed[:last]
	}
	if len(indexed) > 0 {
		return False("the indexes miss %d notes", len(indexed))
	}
	return nil
}

// Unindexed reports whether an error of Read is about nothing but indexes and filters that are not there (yet): recovery
// builds those that a crash has kept from being written.
func Unindexed(err error) bool {
	all, ok := err.(interface{ Unwrap() []error })
	return ok && !slices.ContainsFunc(all.Unwrap(), func(err error) bool {
		var at *runlog.Error
		return !errors.As(err, &at) || !slices.Contains([]string{".idx", ".flt"}, filepath.Ext(at.Path)) ||
			!errors.Is(err, fs.ErrNotExist)
	})
}

// ErrFalse: what was read is not what was submitted. No damage excuses that.
var ErrFalse = errors.New("false")

// False makes an ErrFalse.
func False(text string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFalse, fmt.Errorf(text, args...))
}

// located returns nil if err is nil, or says as a typed error which file of the run is damaged, and where.
func located(err error, dir string) error {
	var at *runlog.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFalse):
		return err
	case errors.Is(err, runlog.ErrQuarantined):
		return nil // an earlier boot has said where; its verdict is in the run's folder
	case !errors.As(err, &at) || filepath.Dir(at.Path) != dir && at.Path != dir || at.Offset < 0 && at.Why == "":
		return fmt.Errorf("the error does not say where: %w", err)
	}
	return nil
}

// same compares all that a caller gave. Of lifecycle entries, which runlog writes itself, it compares topic and type.
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
