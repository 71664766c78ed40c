package slow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// compare reads a folder with both readers and returns in what they differ.
func compare(fsys vfs.FS, dir string, files map[string][]byte, whole *Log) error {
	l := Read(files)
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return refused(l, err)
	}
	defer r.Close()
	var got []Entry
	var end error
	for v, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			end = err
			break
		}
		got = append(got, entryOf(v.Clone()))
	}
	return errors.Join(
		sameEntries(got, l, whole), sameNotes(l, r),
		sameEnd(l, end, "scan", len(got)-len(l.Entries)), sameDamage(l, r.Damage()),
		sameNumbers(l, r),
		sameBackwards(l, r, whole), samePoints(l, r, whole),
		sameKeys(l, r, whole),
		sameVerdict(l, fsys, dir),
	)
}

// refused: OpenReader says that there is nothing to read.
func refused(l *Log, err error) error {
	if l.End.Verdict == NotRun && errors.Is(err, runlog.ErrNotRun) || l.End.Verdict == Version && errors.Is(err, runlog.ErrVersion) {
		return nil
	}
	if l.End.Verdict == Missing && len(l.numbers(".seg")) == 0 {
		return sameEnd(l, err, "OpenReader", 0)
	}
	return fmt.Errorf("slow: %+v; OpenReader: %w", l.End, err)
}

func entryOf(e runlog.Entry) Entry {
	out := Entry{
		Seq: e.Seq, Topic: e.Topic, Type: e.Type, Payload: e.Payload, TsInit: e.TsInit, TsPublish: e.TsPublish,
		ID: e.ID, Correlation: e.CorrelationID, Causation: e.CausationID,
	}
	for _, k := range e.Keys {
		out.Keys = append(out.Keys, Key{Kind: k.Kind, Value: k.Value})
	}
	return out
}

func sameEntry(a, b *Entry) bool {
	return a.Seq == b.Seq && a.Topic == b.Topic && a.Type == b.Type && bytes.Equal(a.Payload, b.Payload) && a.TsInit == b.TsInit &&
		a.TsPublish == b.TsPublish && a.ID == b.ID && a.Correlation == b.Correlation && a.Causation == b.Causation &&
		slices.EqualFunc(a.Keys, b.Keys, func(x, y Key) bool { return x.Kind == y.Kind && x.Value == y.Value })
}

// sameEntries: whole batches, and in a segment that has its footer the good entries in front of a damaged one too. For those
// the real reader takes the dictionary from the index; if that is damaged as well it can read fewer of them, or none.
func sameEntries(got []Entry, l, whole *Log) error {
	want := slices.Concat(l.Entries, l.Loose)
	index := strings.TrimSuffix(l.End.File, ".seg") + ".idx"
	if len(l.Loose) > 0 && len(got) >= len(l.Entries) && !bytes.Equal(l.files[index], whole.files[index]) {
		want = want[:min(len(got), len(want))]
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			return fmt.Errorf("slow reads %d entries, scan %d", len(want), len(got))
		}
		if !sameEntry(&got[i], &want[i]) {
			return fmt.Errorf("slow reads %+v, scan %+v", want[i], got[i])
		}
	}
	return nil
}

// sameNotes reads all notes, and once more those that are indexed, which need not be read in order.
func sameNotes(l *Log, r *runlog.Reader) error {
	for _, kinds := range [][]entry.NoteKind{nil, {entry.NoteAnchor, entry.NoteStateHash, entry.NoteStreams, entry.NoteGap}} {
		var want, got []Note
		for _, n := range l.Notes {
			if kinds == nil || entry.NoteKind(n.Kind).Indexed() {
				want = append(want, n)
			}
		}
		var end error
		for n, err := range r.Notes(wal.NoteOptions{Kinds: kinds}) {
			if err != nil {
				end = err
				break
			}
			got = append(got, Note{Kind: byte(n.Kind), After: n.After, Body: bytes.Clone(n.Body)})
		}
		if l.End.Verdict.damaged() { // single frames in front of it may be good, and the indexes know places behind it
			if end == nil && kinds == nil {
				return fmt.Errorf("slow: %+v; Notes ends without an error", l.End)
			}
			continue
		}
		if errors.Is(end, runlog.ErrCorrupt) && len(l.Findings) > 0 {
			end, want = nil, want[:min(len(got), len(want))] // behind a segment's last entry, where no scan of entries goes
		}
		if end != nil || !slices.EqualFunc(want, got, func(a, b Note) bool {
			return a.Kind == b.Kind && a.After == b.After && bytes.Equal(a.Body, b.Body)
		}) {
			return fmt.Errorf("slow reads %d notes, Notes %d, then %w", len(want), len(got), orClean(end))
		}
	}
	return nil
}

// sameEnd compares how reading ends, after so many entries of a batch that is not whole.
func sameEnd(l *Log, err error, what string, loose int) error {
	var located *runlog.Error
	errors.As(err, &located)
	ok := false
	switch l.End.Verdict {
	case Clean, Torn:
		if ok = err == nil; ok {
			return nil
		}
	case Corrupt:
		ok = errors.Is(err, runlog.ErrCorrupt) && !errors.Is(err, runlog.ErrMissingSegment)
	case Missing:
		ok = errors.Is(err, runlog.ErrMissingSegment)
	case Version:
		ok = errors.Is(err, runlog.ErrVersion)
	case WrongKind:
		ok = errors.Is(err, runlog.ErrWrongKind)
	}
	if !ok {
		return fmt.Errorf("slow: %+v; %s: %w", l.End, what, orClean(err))
	}
	// Behind a segment that has lost its footer too, a range may begin where that segment does: nothing closer tells.
	early := len(l.Findings) > 0 && located != nil && located.FirstSeq <= l.End.FirstSeq && located.LastSeq >= l.End.FirstSeq
	if located == nil || path.Base(located.Path) != l.fileOf(l.End.File) || !l.says(l.End.File, l.End.Offset, located.Offset) || !early &&
		(located.FirstSeq != l.End.FirstSeq+uint64(loose)) && (located.FirstSeq != l.End.FirstSeq || located.LastSeq >= l.End.FirstSeq+uint64(loose)) ||
		located.LastSeq != 0 && located.LastSeq < located.FirstSeq {
		return fmt.Errorf("slow: %+v; %s: %w, located %+v", l.End, what, err, located)
	}
	// A compressed segment can lose its start frame and say by its index where its entries begin, so that the real reader knows that
	// a damaged segment in front held none: a range that no error can name.
	unnamed := located.LastSeq == 0 && len(l.packed) == 0
	if next := l.resumed; next > 0 && (located.LastSeq >= next || unnamed && next > located.FirstSeq) {
		return fmt.Errorf("slow: %+v, goes on at seq %d; %s: %w", l.End, next, what, err)
	}
	return nil
}

// readable are the entries that can be read although others are damaged, by seq.
func (l *Log) readable() map[uint64]*Entry {
	m := map[uint64]*Entry{}
	for _, list := range [][]Entry{l.Entries, l.Behind} {
		for i := range list {
			m[list[i].Seq] = &list[i]
		}
	}
	return m
}

// at is the entry with this seq of an undamaged run, nil if it has none.
func (l *Log) at(seq uint64) *Entry {
	if seq < l.floor || seq-l.floor >= uint64(len(l.Entries)) {
		return nil
	}
	return &l.Entries[seq-l.floor]
}

// said reports whether an error names damage and where it is.
func said(err error) bool {
	var at *runlog.Error
	return errors.As(err, &at) && at.Path != "" && at.FirstSeq > 0 &&
		(errors.Is(err, runlog.ErrCorrupt) || errors.Is(err, runlog.ErrVersion) || errors.Is(err, runlog.ErrWrongKind))
}

// samePoints gets every entry that was ever written.
func samePoints(l *Log, r *runlog.Reader, whole *Log) error {
	good := l.readable()
	for i := range whole.Entries {
		want := &whole.Entries[i]
		v, err := r.Get(want.Seq, nil)
		if err == nil {
			if e := entryOf(v.Clone()); !sameEntry(&e, want) {
				return fmt.Errorf("Get(%d) returns what was never written: %+v", want.Seq, e)
			}
			continue
		}
		if want.Seq > l.last.lastSeq && l.Open.Verdict == "" && errors.Is(err, runlog.ErrNotFound) {
			continue // behind an end that is known
		}
		if good[want.Seq] != nil || !l.End.Verdict.damaged() && !errors.Is(err, runlog.ErrNotFound) || l.End.Verdict.damaged() && !said(err) {
			return fmt.Errorf("slow: %+v, can read %d: %v; Get: %w", l.End, want.Seq, good[want.Seq] != nil, err)
		}
		var at *runlog.Error
		if want.Seq <= l.last.lastSeq && errors.As(err, &at) && (want.Seq < at.FirstSeq || want.Seq > max(at.FirstSeq, at.LastSeq) && at.LastSeq > 0) {
			return fmt.Errorf("slow: %+v; Get(%d) names others: %w", l.End, want.Seq, err)
		}
	}
	return nil
}

// sameBackwards scans from the end.
func sameBackwards(l *Log, r *runlog.Reader, whole *Log) error {
	good := l.readable()
	var end error
	next := l.last.lastSeq
	for v, err := range r.Scan(runlog.ScanOptions{Reverse: true}) {
		if err != nil {
			end = err
			break
		}
		e := entryOf(v.Clone())
		if e.Seq != next || whole.at(next) == nil || !sameEntry(&e, whole.at(next)) {
			return fmt.Errorf("backwards: seq %d where %d should be: %+v", e.Seq, next, e)
		}
		next--
	}
	switch {
	case end == nil && next == l.floor-1 && l.Open.Verdict == "": // each entry is verified by itself, so damage to a commit is not met
	case end == nil:
		return fmt.Errorf("backwards: ends at seq %d without an error, %+v", next, l.End)
	case !l.End.Verdict.damaged() || !said(end):
		return fmt.Errorf("slow: %+v; backwards: %w", l.End, end)
	case l.Open.Verdict != "" && next != l.last.lastSeq:
		return fmt.Errorf("backwards: seq %d in front of an end that nobody knows", next+1)
	case l.Open.Verdict == "" && good[next] != nil && next >= l.lastGap:
		return fmt.Errorf("slow: %+v, can read %d; backwards: %w", l.End, next, end)
	}
	return nil
}

// sameDamage: the real reader opens without reading all, so it may not know yet what a scan finds.
func sameDamage(l *Log, err error) error {
	if err != nil && (l.End.Verdict == Clean || l.End.Verdict == Torn) {
		return fmt.Errorf("slow: %+v; Damage: %w", l.End, err)
	}
	return nil
}

var errClean = errors.New("no error")

func orClean(err error) error {
	if err == nil {
		return errClean
	}
	return err
}

func sameNumbers(l *Log, r *runlog.Reader) error {
	if last := l.last.lastSeq; l.End.Verdict.damaged() {
		if r.LastSeq() != last || r.Durable() > last || r.Live() && r.Damage() != nil {
			return fmt.Errorf("slow: %+v, last %d, durable %d; real: %d, %d, live %v", l.End, last, l.Durable, r.LastSeq(), r.Durable(), r.Live())
		}
		return nil
	}
	last := l.last.lastSeq
	dropped := l.Torn + int64(l.Dropped)
	if r.LastSeq() != last || r.Durable() != l.Durable || r.DroppedBytes() != dropped || r.Live() == l.Sealed {
		return fmt.Errorf("slow: last %d, durable %d, dropped %d, sealed %v; real: %d, %d, %d, live %v",
			last, l.Durable, dropped, l.Sealed, r.LastSeq(), r.Durable(), r.DroppedBytes(), r.Live())
	}
	return nil
}

// sameKeys looks up every key that slow has seen, in its entries and in those of the undamaged run.
func sameKeys(l *Log, r *runlog.Reader, whole *Log) error {
	want := map[Key][]uint64{}
	for i := range l.Entries {
		for _, k := range keysOf(&l.Entries[i]) {
			if s := want[k]; len(s) == 0 || s[len(s)-1] != l.Entries[i].Seq {
				want[k] = append(s, l.Entries[i].Seq)
			}
		}
	}
	for i := range whole.Entries {
		for _, k := range keysOf(&whole.Entries[i]) {
			if _, there := want[k]; !there {
				want[k] = nil
			}
		}
	}
	for k, seqs := range want {
		var got []uint64
		var end error
		for v, err := range r.History(k.Kind, k.Value) {
			if err != nil {
				end = err
				break
			}
			e := entryOf(v.Clone())
			if whole.at(e.Seq) == nil || !sameEntry(&e, whole.at(e.Seq)) {
				return fmt.Errorf("History(%v) returns what was never written: %+v", k, e)
			}
			got = append(got, e.Seq)
		}
		seq, ok, err := r.Lookup(k.Kind, k.Value)
		if errors.Is(end, runlog.ErrUnknownKind) && errors.Is(err, runlog.ErrUnknownKind) && len(seqs) == 0 {
			continue // the run that is left declares no such kind
		}
		if err == nil && (ok != (len(got) > 0) || ok && seq != got[0]) {
			return fmt.Errorf("Lookup(%v) is %d, %v; History gives %v, %v", k, seq, ok, got, end)
		}
		if l.End.Verdict != Clean && l.End.Verdict != Torn {
			continue // indexes lead behind the damage too; that all is as it was written is checked above
		}
		if end == nil && !slices.Equal(got, seqs) || !slices.Equal(got, seqs[:min(len(got), len(seqs))]) {
			return fmt.Errorf("slow finds %v at %v, History at %v, %v (%+v)", k, seqs, got, end, l.End)
		}
		if (end != nil || err != nil) && l.End.Verdict == Clean {
			return fmt.Errorf("History(%v): %w, %w, but the log is %+v", k, end, orClean(err), l.End)
		}
	}
	return nil
}

func keysOf(e *Entry) (ks []Key) {
	for _, k := range e.Keys {
		ks = append(ks, Key{Kind: k.Kind, Value: k.Value})
	}
	if e.ID != ([16]byte{}) {
		ks = append(ks, Key{Kind: "id", Value: runlog.ID(e.ID).String()})
	}
	if e.Correlation != ([16]byte{}) {
		ks = append(ks, Key{Kind: "correlation_id", Value: runlog.ID(e.Correlation).String()})
	}
	return ks
}

// sameVerdict: verify finds something just when slow does.
func sameVerdict(l *Log, fsys vfs.FS, dir string) error {
	report, err := verify.Run(context.Background(), fsys, dir, verify.Options{})
	damaged := l.End.Verdict != Clean && l.End.Verdict != Torn || len(l.Findings) > 0
	if err == nil && report.Clean() == damaged {
		return fmt.Errorf("slow: %+v %q; verify: %v", l.End, l.Findings, report.Findings)
	}
	if err != nil && l.End.Verdict != Version {
		return fmt.Errorf("slow: %+v; verify: %w", l.End, err)
	}
	return nil
}
