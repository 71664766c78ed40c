package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// damage lists the bytes that are not as they were, or not where they were.
type damage []touch

type touch struct {
	file     string
	from, to int64
}

// hits reports whether a part of from..to of the file is damaged.
func (d damage) hits(name string, from, to int64) bool {
	return slices.ContainsFunc(d, func(t touch) bool { return t.file == name && t.from < to && from < t.to })
}

// harm is what was done to a copy of a specimen.
type harm struct {
	damage
	files   []string // that are concerned beside the damaged ones: an error may name them
	told    bool     // it must be told, whatever claim says
	doubt   bool     // whose run it is is in doubt, so another file may be named for it
	stale   bool     // files are as they once were: verify may take that for what a crash has left
	several bool     // things were done: verify has to say so, but may name one for the other
	less    bool     // entries in front of the damage may be withheld, if it is told
}

// proof is a piece of a segment that is evidence: a batch with its commit, a footer, or a halt record beside the chain.
type proof struct {
	file     string
	from, to int64
	own      int64  // where the frame begins that says it: of a batch, its commit
	ordinal  uint64 // of the batch; 0: not a batch
	last     uint64 // seq at the end of the batch
	durable  uint64 // the ordinal that it says was durable
	footer   bool
}

// prove lists what a segment holds, in order.
func (s *specimen) prove(f *file) error {
	r := bytes.NewReader(f.b)
	h, err := segment.ReadHeader(r, f.name)
	if err != nil {
		return err
	}
	beside := false
	if st, ok := segment.DecodeStart(f.b[h.Size:], h.Salt, h.Size); ok && st.Detached {
		beside = true
		s.proof = append(s.proof, proof{file: f.name, from: h.Size, to: h.Size + segment.StartSize, own: h.Size, durable: st.Prev.Ordinal})
	}
	if !beside {
		segment.FindCommits(f.b, h.Salt, 0, func(c segment.Commit) bool {
			f.log = true
			s.proof = append(s.proof, proof{file: f.name, from: c.BatchStart, to: c.End(), own: c.Offset, ordinal: c.Ordinal, last: c.LastSeq, durable: c.Durable})
			return true
		})
	}
	if ft, ok, _ := segment.ReadFooter(r, int64(len(f.b)), &h); ok {
		f.foot = ft.ContentEnd
		s.proof = append(s.proof, proof{file: f.name, from: ft.ContentEnd, to: int64(len(f.b)), own: ft.ContentEnd, durable: ft.LastOrdinal, footer: true})
	}
	return nil
}

// claim says what a run must still hold after damage, and whether the damage must be told by whoever reads all entries.
//
// Everything in front of the first batch that is damaged must be there, whatever else is. The damage must be told if
// something that is not damaged says that the batch was durable: a later commit or mark, a footer, a halt record, the
// manifest of a sealed run; or if it hides a whole segment that the one before names. Else, and only then, it looks like
// a torn tail, and entries from that batch on may be missing without an error: "What runlog cannot promise" in
// docs/guarantees.md. Where one bit is damaged this can only be the last commit of a run that nothing has vouched for
// yet. Damage to anything that is not a batch takes no entry, and need not be told: it is rebuilt. Nor need damage to a
// batch without entries that a footer vouches for: reading entries does not touch it, and verify finds it.
func (s *specimen) claim(d damage) (least uint64, told bool) {
	d = append(slices.Clip(s.early), d...)
	endKnown := s.sealed && !d.hits(manifest.FileName, 0, 1<<40)
	v := s.vouched(d)
	whole, before := true, uint64(0)
	for _, p := range s.proof {
		if p.ordinal == 0 {
			continue
		}
		if lost := v.lost[p.file]; lost || d.hits(p.file, p.from, p.to) {
			named := lost && whole // by a segment in front, which is whole
			whole = false
			told = told || (endKnown || p.ordinal <= v.durable || named) && (p.last > before || !v.footer[p.file])
		}
		if before = p.last; whole {
			least = p.last
		}
	}
	return least, told
}

// vouched is what damage leaves of the evidence.
type vouched struct {
	durable uint64          // ordinal
	footer  map[string]bool // segments whose footer is whole
	lost    map[string]bool // segments whose header is damaged: without its salt nothing in them is evidence
}

func (s *specimen) vouched(d damage) vouched {
	v := vouched{footer: map[string]bool{}, lost: map[string]bool{}}
	for _, p := range s.proof {
		if d.hits(p.file, 0, segment.BlockSize) {
			v.lost[p.file] = true
		} else if !d.hits(p.file, p.own, p.to) {
			v.durable = max(v.durable, p.durable)
			v.footer[p.file] = v.footer[p.file] || p.footer
		}
	}
	return v
}

// read judges a damaged copy as a reader sees it, and returns how many entries it gives and what it says of the damage.
func (s *specimen) read(m vfs.FS, d harm) (n uint64, said, err error) {
	least, told := s.claim(d.damage)
	told = told || d.told
	was := s.h.Runs[s.run]
	was.Acked = least
	n, said = was.Read(m, s.dir)
	switch {
	case errors.Is(said, oracle.ErrFalse):
		return n, said, said
	case n < least && !(d.less && said != nil):
		return n, said, fmt.Errorf("%d entries, but %d stand in front of the damage: %w", n, least, said)
	case said == nil && told:
		return n, said, fmt.Errorf("nobody has noticed it, and %d of %d entries are there", n, len(s.all))
	}
	return n, said, s.blames(said, d)
}

// blames returns nil if every error says, typed, which of the damaged files is concerned, and where or why.
func (s *specimen) blames(err error, d harm) error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			if err := s.blames(err, d); err != nil {
				return err
			}
		}
		return nil
	}
	var at *runlog.Error
	var missing *fs.PathError
	path := ""
	switch {
	case errors.As(err, &at) && (at.Offset >= 0 || at.Why != "") && isDamage(err):
		path = at.Path
	case errors.As(err, &missing) && errors.Is(err, fs.ErrNotExist):
		path = missing.Path
	default:
		return fmt.Errorf("the error does not say what and where: %w", err)
	}
	if filepath.Dir(path) != s.dir && path != s.dir || !s.concerns(filepath.Base(path), d) && !errors.Is(err, runlog.ErrMissingSegment) {
		return fmt.Errorf("the error names a file that is whole: %w", err)
	}
	return nil
}

func isDamage(err error) bool {
	return errors.Is(err, runlog.ErrCorrupt) || errors.Is(err, runlog.ErrWrongKind) || errors.Is(err, runlog.ErrQuarantined) ||
		errors.Is(err, runlog.ErrNotRun) || errors.Is(err, fs.ErrNotExist)
}

func (s *specimen) concerns(name string, d harm) bool {
	return d.hits(name, 0, 1<<40) || s.early.hits(name, 0, 1<<40) || slices.Contains(d.files, name)
}

// question is something that can be asked of a run, and the seqs of the right answer.
type question struct {
	name string
	kind string // of a key; "": it is a scan
	key  string
	scan runlog.ScanOptions
	want []uint64
}

// questions are all that is asked of a run that holds these entries.
func questions(all []runlog.Entry) (list []question) {
	key := func(kind, value string, has func(e *runlog.Entry) bool) {
		q := question{name: fmt.Sprintf("%s %q", kind, value), kind: kind, key: value}
		if slices.ContainsFunc(list, func(p question) bool { return p.name == q.name }) {
			return
		}
		q.want = seqs(all, has)
		list = append(list, q)
	}
	scan := func(name string, o runlog.ScanOptions, has func(e *runlog.Entry) bool) {
		list = append(list, question{name: name, scan: o, want: seqs(all, has)})
	}
	for _, e := range all {
		for _, k := range e.Keys {
			key(k.Kind, k.Value, func(e *runlog.Entry) bool { return slices.Contains(e.Keys, k) })
		}
		if e.ID != (runlog.ID{}) {
			key("id", e.ID.String(), func(x *runlog.Entry) bool { return x.ID == e.ID })
			key("correlation_id", e.CorrelationID.String(), func(x *runlog.Entry) bool { return x.CorrelationID == e.CorrelationID })
		}
	}
	none := func(*runlog.Entry) bool { return false }
	key(runlog.ClientOrderID, "absent", none)
	key("id", runlog.ID{9}.String(), none)
	for i := range 3 {
		topic := fmt.Sprint("topic-", i)
		scan(topic, runlog.ScanOptions{Topic: topic, Type: "T1"}, func(e *runlog.Entry) bool { return e.Topic == topic && e.Type == "T1" })
		scan(topic+" backwards", runlog.ScanOptions{Topic: topic, Reverse: true}, func(e *runlog.Entry) bool { return e.Topic == topic })
	}
	if len(all) > 0 {
		from, to := all[len(all)/3].TsPublish, all[len(all)/2].TsPublish
		scan("by publish time", runlog.ScanOptions{Since: from, Until: to}, func(e *runlog.Entry) bool { return e.TsPublish >= from && e.TsPublish <= to })
	}
	scan("by init time", runlog.ScanOptions{Since: -3000, Until: -1, By: runlog.ByInit}, func(e *runlog.Entry) bool { return e.TsInit >= -3000 && e.TsInit <= -1 })
	scan("backwards", runlog.ScanOptions{Reverse: true}, func(*runlog.Entry) bool { return true })
	return list
}

func seqs(all []runlog.Entry, has func(e *runlog.Entry) bool) (list []uint64) {
	for i := range all {
		if has(&all[i]) {
			list = append(list, all[i].Seq)
		}
	}
	return list
}

// ask asks some of the questions and returns nil if every answer is right, or an error that names the damage: nothing
// wrong, and nothing missing without an error.
func (s *specimen) ask(m vfs.FS, d harm, from, count int) error {
	r, err := runlog.OpenReader(s.dir, runlog.ReaderOptions{FS: m})
	if err != nil {
		return s.blames(err, d)
	}
	defer r.Close()
	last := r.LastSeq() // nothing behind it is promised: see claim, which read has checked
	for i := range count {
		q := &s.keys[(from+i)%len(s.keys)]
		if err := s.answer(r, q, last, d); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	if n := uint64(len(s.all)); n > 0 {
		seq := uint64(from)%n + 1
		switch v, err := r.Get(seq, nil); {
		case err == nil:
			return s.right(v, seq)
		case !errors.Is(err, runlog.ErrNotFound) || seq <= last:
			return s.blames(err, d)
		}
	}
	return nil
}

// right compares an entry with what the whole run holds.
func (s *specimen) right(v runlog.View, seq uint64) error {
	if got := v.Clone(); v.Seq() != seq || !reflect.DeepEqual(got, s.all[seq-1]) {
		return oracle.False("seq %d was asked for, and seq %d, %s came", seq, v.Seq(), v.Topic())
	}
	return nil
}

func (s *specimen) answer(r *runlog.Reader, q *question, last uint64, d harm) error {
	want := q.want
	for len(want) > 0 && want[len(want)-1] > last {
		want = want[:len(want)-1]
	}
	var got []uint64
	var said, wrong error
	take := func(v runlog.View, err error) bool {
		if err != nil {
			said = err
			return true // an error comes last: whatever follows is counted
		}
		if said != nil {
			wrong = oracle.False("seq %d comes after an error", v.Seq())
		}
		if v.Seq() == 0 || v.Seq() > uint64(len(s.all)) {
			wrong = oracle.False("seq %d does not exist", v.Seq())
		} else if err := s.right(v, v.Seq()); err != nil {
			wrong = err
		}
		got = append(got, v.Seq())
		return wrong == nil
	}
	if q.kind == "" {
		r.Scan(q.scan)(take)
	} else {
		r.History(q.kind, q.key)(take)
	}
	if wrong != nil {
		return wrong
	}
	if errors.Is(said, runlog.ErrUnknownKind) && len(got) == 0 && (len(want) == 0 || d.hits(manifest.FileName, 0, 1<<40)) {
		return nil // nothing is left that could have made it known: an answer, though not one that says where
	}
	if q.scan.Reverse {
		want = slices.Clone(want)
		slices.Reverse(want)
	}
	if said == nil && !slices.Equal(got, want) || len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		return oracle.False("seqs %v, want %v, said %w", got, want, said)
	}
	if err := s.blames(said, d); err != nil || q.kind == "" {
		return err
	}
	seq, ok, err := r.Lookup(q.kind, q.key)
	switch {
	case err != nil:
		return s.blames(err, d)
	case ok != (len(want) > 0) || ok && seq != want[0]:
		return oracle.False("lookup: seq %d, %v, want %v", seq, ok, want)
	case !ok && r.Damage() != nil && len(q.want) > 0:
		return oracle.False("lookup: it is not there, and no error, though seq %d is damaged", q.want[0])
	}
	return nil
}

// found has verify read every byte, and returns nil if it names every damaged file in which every byte is checked.
func (s *specimen) found(m vfs.FS, d harm) error {
	rep, err := verify.Run(context.Background(), m, s.dir, verify.Options{})
	if errors.Is(err, runlog.ErrNotRun) {
		return s.blames(err, d)
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if d.stale {
		return nil
	}
	if (s.sealed && len(d.files) > 0 || d.doubt) && rep.Clean() {
		return fmt.Errorf("verify has not found it: notes %v", rep.Notes)
	}
	for _, t := range d.damage {
		if d.doubt {
			break // it may name what contradicts the damaged file
		}
		must := s.checked(t, d.damage)
		f := s.file(t.file)
		if f != nil && f.log && !s.sealed && (t.to == int64(len(f.b)) || t.to-t.from > 8 && f.foot >= 0 && t.to > f.foot) { // it was cut
			must = must || d.told
		}
		if f != nil && f.derived() && slices.ContainsFunc(d.damage, func(t touch) bool { return strings.HasSuffix(t.file, ".seg") }) {
			must = false // what it is made from is named
		}
		if must && (rep.Clean() || !d.several && !slices.ContainsFunc(rep.Findings, func(f verify.Finding) bool { return filepath.Base(f.Path) == t.file })) {
			return fmt.Errorf("verify has not found it: findings %v, notes %v", rep.Findings, rep.Notes)
		}
	}
	return nil
}

// checked reports whether verify must find the damage to these bytes. Of a sealed run that is every bit of every file.
// Of one that is not, these are free: what lies behind the last batch, where the next one would be written; a spare, and
// the record of a halt beside the chain, except that its start frame is evidence when something else is damaged; and what
// looks like a torn tail, see claim. Files that a crash could have kept from being written may be missing, and so may a
// verdict, which an operator may remove.
func (s *specimen) checked(t touch, d damage) bool {
	f := s.file(t.file)
	sealed := s.sealed && !d.hits(manifest.FileName, 0, 1<<40)
	if sealed || f == nil || !f.segment() {
		gone := f != nil && t.from == 0 && t.to >= int64(len(f.b)) && (f.derived() || f.name == manifest.PrevName || f.name == manifest.QuarantineName)
		return sealed || !gone
	}
	v := s.vouched(d)
	for _, p := range s.proof {
		lost := v.lost[p.file]
		switch {
		case p.ordinal > v.durable && !lost && d.hits(p.file, p.from, p.to):
			return false // the log ends before here
		case p.file == t.file && (lost || t.from < p.to && p.from < t.to):
			return f.log
		}
	}
	return false
}

// after is what is left of the damaged run when somebody has booted on it.
type after struct {
	n           uint64
	failed      bool
	quarantined bool
}

// boot judges a damaged copy by booting on it, appending, crashing and booting again, and once more with a crash inside
// the first recovery. What is found must be the same each time: the damage is told, the quarantine stays, and the
// segments of a quarantined run do not change.
func (s *specimen) boot(m *vfs.Mem, d harm, r *rand.Rand) error {
	least, told := s.claim(d.damage)
	h := oracle.History{Runs: map[string]oracle.Run{}, Damaged: true}
	for id, was := range s.h.Runs {
		if id == s.run {
			was.Acked = least
		}
		h.Runs[id] = was
	}
	before, err := segmentsOf(m, s.dir)
	if err != nil {
		return err
	}
	look := func(when string, m vfs.FS) (a after, err error) {
		if _, err := m.Stat(s.dir); errors.Is(err, fs.ErrNotExist) && least == 0 {
			return after{failed: told}, nil // nothing was left that says that there was a run
		}
		was := h.Runs[s.run]
		var said error
		a.n, said = was.Read(m, s.dir)
		a.failed = said != nil
		_, quarantined, _ := manifest.ReadQuarantine(m, s.dir)
		a.quarantined = quarantined
		now, err := segmentsOf(m, s.dir)
		switch {
		case err != nil:
		case errors.Is(said, oracle.ErrFalse):
			err = said
		case a.n < least && !(d.less && a.failed):
			err = fmt.Errorf("%d entries, but %d stand in front of the damage: %w", a.n, least, said)
		case told && !a.failed:
			err = fmt.Errorf("nobody notices the damage any more, and %d of %d entries are there", a.n, len(s.all))
		case a.quarantined && !reflect.DeepEqual(before, now):
			err = errors.New("it is quarantined, and its segments were changed")
		case !s.keeps(before, now, d.damage):
			err = errors.New("the content of a sealed segment was changed")
		default:
			err = s.blames(said, d)
		}
		if !told && !a.quarantined {
			a.failed = false // a warning: what was damaged may be made anew at any time
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", when, err)
		}
		return a, err
	}
	cut := func(seed uint64) func(vfs.FS) vfs.FS {
		return func(f vfs.FS) vfs.FS { return f.(*vfs.Mem).Crash(vfs.Random(seed)) }
	}
	again := func(m *vfs.Mem, seed uint64) (*vfs.Mem, error) {
		var end vfs.FS
		o := specimenOptions(m, seed, 1_900_000_000_000_000_000+int64(seed%1000)*1e9)
		err := h.Judge(m, o, 1, func(f vfs.FS) vfs.FS { end = cut(seed)(f); return end })
		last, _ := end.(*vfs.Mem)
		return last, err
	}
	var inside *vfs.Mem
	at := 1 + r.IntN(30)
	seed := r.Uint64()
	m.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange != 0 {
			if at--; at == 0 {
				inside = m.Crash(vfs.Random(seed))
			}
		}
		return nil
	})
	last, err := again(m, seed)
	m.SetHook(nil)
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	want, err := look("after the boot", m)
	if err != nil {
		return err
	}
	worlds := map[string]*vfs.Mem{"after the second boot": last}
	if inside != nil {
		if last, err = again(inside, seed+1); err != nil {
			return fmt.Errorf("boot after a crash inside the recovery: %w", err)
		}
		worlds["after a crash inside the recovery"], worlds["after that and a second boot"] = inside, last
	}
	for when, m := range worlds {
		if got, err := look(when, m); err != nil || got != want {
			return fmt.Errorf("%s: %+v, and after the boot %+v: %w", when, got, want, err)
		}
	}
	return nil
}

// keeps reports whether the content of all segments that have a footer is what it was: boot may only cut behind it.
func (s *specimen) keeps(before, now map[string]string, d damage) bool {
	for i := range s.files {
		f := &s.files[i]
		was, is := before[f.name], now[f.name]
		if n := int(f.foot); n >= 0 && !d.hits(f.name, f.foot, 1<<40) && int64(len(was)) >= f.foot && (len(is) < n || was[:n] != is[:n]) {
			return false
		}
	}
	return true
}

// segmentsOf reads all segments of a run.
func segmentsOf(m vfs.FS, dir string) (map[string]string, error) {
	names, err := m.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), ".seg") {
			b, err := vfs.ReadFile(m, filepath.Join(dir, e.Name()), 1<<30)
			if err != nil {
				return nil, err
			}
			all[e.Name()] = string(b)
		}
	}
	return all, nil
}

// tally counts what became of the cases.
type tally struct{ told, harmless, asked, verified, booted atomic.Int64 }

func (t *tally) String() string {
	return fmt.Sprintf("(%d told, %d harmless; of these %d asked, %d verified, %d booted on)",
		t.told.Load(), t.harmless.Load(), t.asked.Load(), t.verified.Load(), t.booted.Load())
}

// shares say for which of the cases the dearer judgements are made: one in so many, 0 none.
type shares struct{ ask, verify, boot int }

// judge judges a damaged copy. Every case is read from end to end. A share is asked by key, by time, by topic, backwards
// and by seq; a share is verified; a share is booted on: recovered, appended to, crashed and recovered again, and that
// once more with a crash inside the recovery.
func (s *specimen) judge(m *vfs.Mem, d harm, share shares, r *rand.Rand, t *tally) error {
	changes := m.Ops(vfs.OpChange)
	_, said, err := s.read(m, d)
	if err != nil {
		return err
	}
	if said == nil {
		t.harmless.Add(1)
	} else {
		t.told.Add(1)
	}
	is := func(n int) bool { return n > 0 && r.IntN(n) == 0 }
	if is(share.ask) {
		t.asked.Add(1)
		if err := s.ask(m, d, r.IntN(1<<20), 6); err != nil {
			return err
		}
	}
	if is(share.verify) {
		t.verified.Add(1)
		if err := s.found(m, d); err != nil {
			return err
		}
	}
	if m.Ops(vfs.OpChange) != changes {
		return errors.New("reading has written something")
	}
	if is(share.boot) {
		t.booted.Add(1)
		return s.boot(m, d, r)
	}
	return nil
}
