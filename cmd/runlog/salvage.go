package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// What stands in a salvaged run for an entry that is lost, or that retention had removed before.
const (
	lostTopic   = "runlog.salvage"
	lostType    = "Lost"
	removedType = "Removed"
)

// reportName is the file beside the salvaged run that says what is lost.
const reportName = "salvage.jsonl"

// lostJSON is a range of seqs that could not be salvaged, and the payload of the entries that stand for it.
type lostJSON struct {
	Record   string `json:"record,omitempty"` // "lost"
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
	Path     string `json:"path,omitempty"`
	Offset   *int64 `json:"offset,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// salvagedJSON is the last line of salvage --json and of the report.
type salvagedJSON struct {
	Record   string        `json:"record"` // "salvaged"
	Dir      string        `json:"dir"`    // of the new run
	Source   string        `json:"source"`
	Run      string        `json:"source_run"`
	Status   runlog.Status `json:"source_status"`
	Entries  uint64        `json:"entries"` // that were copied
	Lost     uint64        `json:"lost"`    // entries
	Ranges   int           `json:"lost_ranges"`
	Notes    uint64        `json:"note_count"` // that were copied
	LastSeq  uint64        `json:"last_seq"`   // of the source, as far as it is known
	Findings int           `json:"findings"`
	Report   string        `json:"report"`
}

func (a *app) salvageCmd() *cobra.Command {
	return &cobra.Command{
		Use: "salvage RUN OUT", Short: "Copy what can still be read of a damaged run into a new one",
		Long: `salvage reads a run as verify does, and copies every entry whose own checksum is right, before, between and behind damage, into a new run
under the base folder OUT, which must not exist; and with them every note that can be read. Keys, ids and both times are kept, and so is every
seq: for each entry that is lost, one with topic runlog.salvage and type Lost stands in its place. Who the run was is kept in the new run's
manifest, with labels that tell where it comes from. The source is never changed.

What is lost is printed, and written to OUT/salvage.jsonl with all findings. Exit code 0: everything was copied; 1: something is lost, or the
run is damaged in another way; 2: it could not be done, and OUT is not there.`,
		Example: `  runlog salvage runs/demo/2026* rescued
  runlog verify rescued && runlog export rescued/demo/2026* > rescued.jsonl
  jq -r 'select(.record == "lost") | "\(.first_seq)-\(.last_seq) \(.detail)"' rescued/salvage.jsonl`,
		Args: exactly("RUN", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, err := classify(args[0])
			if err != nil {
				return err
			}
			if kind != isRun {
				return notRun(args[0], kind)
			}
			if _, err := os.Lstat(args[1]); !errors.Is(err, fs.ErrNotExist) {
				if err == nil {
					err = fmt.Errorf("%s: is there already: salvage makes a new folder", args[1])
				}
				return err
			}
			if inside(args[1], args[0]) {
				return fmt.Errorf("%s: is in the run's own folder, which salvage does not change", args[1])
			}
			return a.salvage(args[0], args[1])
		},
	}
}

// inside reports whether path is below dir.
func inside(path, dir string) bool {
	p, err1 := filepath.Abs(path)
	d, err2 := filepath.Abs(dir)
	rel, err3 := filepath.Rel(d, p)
	return firstOf(err1, err2, err3) == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// salvage is one salvage at work.
type salvage struct {
	im       *runlog.Import
	declared map[string]bool
	first    uint64 // seq of the source: what was in front had been removed, and is not lost
	next     uint64 // seq that the new run's next entry gets
	last     int64  // ts_publish of its last one
	stamped  bool   // last is known
	lost     []lostJSON
	copied   uint64
	lastSeq  uint64 // of the source
	finds    []verify.Finding
	notes    uint64
	waiting  []entry.Note // behind entries that are lost, and for which nothing stands yet
}

func (a *app) salvage(src, out string) (err error) {
	o, m, err := salvageOptions(src, out)
	if err != nil {
		return err
	}
	undo := missingFolders(filepath.Join(o.Dir, o.Instance))
	im, err := runlog.NewImport(o)
	if err != nil {
		undo()
		return err
	}
	s := &salvage{im: im, declared: map[string]bool{entry.ClientOrderID: true, entry.VenueOrderID: true}, first: m.FirstSeq(), next: 2}
	defer func() {
		if err != nil {
			_ = os.Remove(filepath.Join(out, reportName))
			undo()
		}
	}()
	rep, err := s.copy(a, src)
	if err == nil && s.copied == 0 {
		err = badData{fmt.Errorf("%s: not one entry can be read: %s", src, number(rep.Count, "finding", "findings"))}
	}
	if err == nil {
		err = s.tail(&rep, &m)
	}
	if err != nil {
		return errors.Join(err, im.Abort())
	}
	return a.finishSalvage(s, &rep, src, out)
}

// salvageOptions takes over who the run was, as far as manifest or segments tell.
func salvageOptions(src, out string) (o runlog.Options, m runlog.Manifest, err error) {
	m, _, err = manifest.Read(vfs.OS, src)
	if errors.Is(err, runlog.ErrVersion) {
		return o, m, err
	}
	if err != nil {
		r, rerr := runlog.OpenReader(src, runlog.ReaderOptions{})
		if rerr != nil { // neither tells: the folders' names do
			m.Run, m.Instance = filepath.Base(filepath.Clean(src)), filepath.Base(filepath.Dir(filepath.Clean(src)))
			if !manifest.ValidInstance(m.Instance) {
				m.Instance = "unknown"
			}
		} else {
			m = r.Manifest()
			_ = r.Close()
		}
	}
	o = runlog.Options{
		Dir: out, Instance: m.Instance, Build: m.Build, SchemaVersion: m.SchemaVersion, ConfigHash: m.ConfigHash, Components: m.Components,
		Seed: m.Seed, MaxPayload: entry.MaxPayload, Labels: map[string]string{},
	}
	for k, v := range m.Labels {
		o.Labels[k] = v
	}
	for k, v := range map[string]string{"salvaged_run": m.Run, "salvaged_parent": m.Parent, "salvaged_started": formatTime(m.Started)} {
		if len(o.Labels) < manifest.MaxLabels && v != "" {
			o.Labels[k] = v
		}
	}
	return o, m, nil
}

// copy reads the source and adds its entries.
func (s *salvage) copy(a *app, src string) (verify.Report, error) {
	p := a.newProgress()
	defer p.end()
	stop, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	rep, err := verify.Run(stop, vfs.OS, src, verify.Options{
		OnFinding: func(f verify.Finding) {
			if len(s.finds) < maxSalvageFindings {
				s.finds = append(s.finds, f)
			}
		},
		OnProgress: func(done, total int64) {
			p.show(func() string {
				return fmt.Sprintf("%s entries, %s of %s read, %s lost", count(s.copied), size(done), size(total), number(len(s.lost), "range", "ranges"))
			})
		},
		OnEntry: func(v *runlog.View) error { return s.entry(v) },
		OnNote:  func(n *verify.Note) error { return s.note(n) },
	})
	if cause := a.ctx.Err(); cause != nil {
		return rep, fmt.Errorf("interrupted: %w", cause)
	}
	return rep, err
}

// maxSalvageFindings bounds the findings that are kept to say where a range is lost.
const maxSalvageFindings = 100_000

// entry copies one entry. RunStarted and RunEnded are the new run's own, at the same seqs.
func (s *salvage) entry(v *runlog.View) error {
	if v.Seq() < s.next {
		if v.Seq() == 1 {
			s.copied++
		}
		return nil
	}
	if err := s.fill(v.Seq()-1, v.TsPublish(), true); err != nil {
		return err
	}
	if v.IsLifecycle() && v.Topic() == entry.TopicEnded {
		s.copied++
		return nil
	}
	e := v.Clone()
	err := s.add(e.Draft())
	if errors.Is(err, runlog.ErrInvalid) { // whole, but nothing that a run takes
		s.lost = append(s.lost, lostJSON{FirstSeq: e.Seq, LastSeq: e.Seq, Detail: "the entry is readable, but a run does not take it: " + err.Error()})
		return s.placeholders(e.Seq, e.Seq, s.last+1, s.stamped)
	}
	if err == nil {
		s.copied++
	}
	return err
}

// note copies one note, behind the entry that it stands behind.
func (s *salvage) note(n *verify.Note) error {
	if n.After >= s.next {
		w := n.Note
		w.Body = slices.Clone(w.Body)
		s.waiting = append(s.waiting, w)
		return nil
	}
	s.notes++
	return s.im.Note(n.Kind, n.Body)
}

// placeNotes copies the notes that stand in front of the entry which is next.
func (s *salvage) placeNotes() error {
	for len(s.waiting) > 0 && s.waiting[0].After < s.next {
		if err := s.im.Note(s.waiting[0].Kind, s.waiting[0].Body); err != nil {
			return err
		}
		s.notes++
		s.waiting = s.waiting[1:]
	}
	return nil
}

func (s *salvage) add(d runlog.Draft) error {
	if err := s.placeNotes(); err != nil {
		return err
	}
	for i, k := range d.Keys {
		if k.Kind == "" {
			d.Keys[i].Kind, k.Kind = "unnamed", "unnamed"
		}
		if !s.declared[k.Kind] {
			if err := s.im.DeclareKind(k.Kind); err != nil {
				return err
			}
			s.declared[k.Kind] = true
		}
	}
	if err := s.im.Add(d); err != nil {
		return err
	}
	s.next, s.last, s.stamped = s.next+1, d.TsPublish, d.TsPublish != 0
	return nil
}

// fill puts placeholders for the seqs that are missing up to last. They take the times just before that of the entry
// which follows, where there is room: publish times increase with every entry.
func (s *salvage) fill(last uint64, before int64, known bool) error {
	if last < s.next {
		return nil
	}
	first := before - int64(last-s.next+1)
	if s.stamped && (!known || first <= s.last) {
		first, known = s.last+1, true
	}
	if n := min(last, s.first-1); n >= s.next {
		gone := int64(n - s.next + 1)
		if err := s.placeholders(s.next, n, first, known); err != nil || n == last {
			return err
		}
		first += gone
	}
	s.lost = append(s.lost, lostJSON{FirstSeq: s.next, LastSeq: last})
	return s.placeholders(s.next, last, first, known)
}

func (s *salvage) placeholders(first, last uint64, ts int64, timed bool) error {
	payload, err := json.Marshal(lostJSON{FirstSeq: first, LastSeq: last})
	if err != nil {
		return err
	}
	typ := lostType
	if last < s.first {
		typ = removedType
	}
	for seq := first; seq <= last; seq++ {
		d := runlog.Draft{Topic: lostTopic, Type: typ, Payload: payload, TsInit: ts}
		if timed {
			d.TsPublish = ts
			ts++
		}
		if err := s.add(d); err != nil {
			return err
		}
	}
	return nil
}

// tail stands for what is lost at the end. RunEnded, which Finish writes, takes the last seq.
func (s *salvage) tail(rep *verify.Report, m *runlog.Manifest) error {
	last := max(rep.LastSeq, m.LastSeq)
	for _, f := range s.finds {
		if f.Kind == verify.KindFrame || f.Kind == verify.KindFooter || f.Kind == verify.KindQuarantine {
			last = max(last, f.LastSeq)
		}
	}
	s.lastSeq = last
	if m.Status == runlog.Ended && m.LastSeq == last {
		last-- // RunEnded, lost or not
	}
	if err := s.fill(last, 0, false); err != nil {
		return err
	}
	for i := range s.waiting { // behind what is the new run's own RunEnded
		s.waiting[i].After = min(s.waiting[i].After, s.next-1)
	}
	return s.placeNotes()
}

// finishSalvage seals the new run, writes the report and says what was lost.
func (a *app) finishSalvage(s *salvage, rep *verify.Report, src, out string) error {
	s.explain()
	sum := salvagedJSON{
		Record: "salvaged", Source: src, Run: rep.Run, Status: rep.Status, Entries: s.copied, Ranges: len(s.lost), LastSeq: s.lastSeq,
		Notes: s.notes, Findings: rep.Count, Report: filepath.Join(out, reportName),
	}
	for _, l := range s.lost {
		sum.Lost += l.LastSeq - l.FirstSeq + 1
	}
	dir, err := s.im.Finish(a.ctx)
	if err != nil {
		return err
	}
	sum.Dir = dir
	if err := s.report(&sum, src); err != nil {
		return fmt.Errorf("the run %s is made, but not its report: %w", dir, err)
	}
	for _, n := range rep.Notes {
		a.note("%s: %s", src, n)
	}
	a.found = sum.Lost > 0 || rep.Count > 0
	if a.json {
		for _, l := range s.lost {
			_ = a.printJSON(l)
		}
		return a.printJSON(sum)
	}
	for _, l := range s.lost {
		seqs := fmt.Sprintf("seq %d to %d", l.FirstSeq, l.LastSeq)
		if l.FirstSeq == l.LastSeq {
			seqs = fmt.Sprintf("seq %d", l.FirstSeq)
		}
		where := l.Path
		if l.Offset != nil {
			where += fmt.Sprintf(": offset %d", *l.Offset)
		}
		a.out.line("%s", printable(strings.TrimPrefix(fmt.Sprintf("lost: %s: %s: %s", where, seqs, l.Detail), "lost: : "), -1))
	}
	a.out.line("%s: %s copied, %s lost in %s; %s in %s", src, number(sum.Entries, "entry", "entries")+andNotes(sum.Notes), count(sum.Lost),
		number(sum.Ranges, "range", "ranges"), number(sum.Findings, "finding", "findings"), sum.Report)
	a.out.line("%s", dir)
	return nil
}

// explain gives each lost range the finding that says where it was.
func (s *salvage) explain() {
	withSeqs := slices.DeleteFunc(slices.Clone(s.finds), func(f verify.Finding) bool { return f.FirstSeq == 0 || f.Kind == verify.KindQuarantine })
	slices.SortStableFunc(withSeqs, func(a, b verify.Finding) int { return cmp.Compare(a.FirstSeq, b.FirstSeq) })
	ends := func(f *verify.Finding) uint64 { return max(f.FirstSeq, f.LastSeq) }
	i := 0
	for n := range s.lost {
		l := &s.lost[n]
		l.Record = "lost"
		if l.Detail != "" {
			continue
		}
		l.Detail = "no longer in the log"
		for i < len(withSeqs) && ends(&withSeqs[i]) < l.FirstSeq {
			i++
		}
		for _, f := range withSeqs[i:] {
			if f.FirstSeq > l.LastSeq {
				break
			}
			if ends(&f) < l.FirstSeq {
				continue
			}
			l.Path, l.Detail = f.Path, f.Detail
			if f.Offset >= 0 {
				l.Offset = &f.Offset
			}
			break
		}
	}
}

// report writes what was found and lost.
func (s *salvage) report(sum *salvagedJSON, src string) error {
	f, err := os.OpenFile(sum.Report, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	for _, x := range s.finds {
		if err == nil {
			err = enc.Encode(newFindingJSON(src, &x))
		}
	}
	for _, l := range s.lost {
		if err == nil {
			err = enc.Encode(l)
		}
	}
	if err == nil {
		err = enc.Encode(sum)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
