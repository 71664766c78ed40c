// Package verify checks a run's folder from the first byte to the last, and names everything that is not as runlog
// has left it.
//
// It reads every frame once, recomputes every checksum and digest, and compares all derived files with what the
// segments say. Behind damage it goes on with the next frame that validates by itself. It writes nothing, takes no
// lock, works on read-only media and copies, and beside a writer, whose incomplete tail is no finding. Memory depends
// on the largest segment's keys, not on the run. What the bodies of notes say is for those to judge who know their
// kinds: see Options.OnNote.
//
// What is wrong with the data is a Finding; that something could not be checked (no such folder, no permission, a
// newer version) is an error.
package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// Kind says what a finding is about.
type Kind string

// Kinds of findings.
const (
	KindManifest   Kind = "manifest"   // manifest or manifest.prev: missing, damaged, or in contradiction to the segments
	KindQuarantine Kind = "quarantine" // a boot has found the run damaged, or its verdict is damaged
	KindMissing    Kind = "missing"    // a segment that should be there is not
	KindHeader     Kind = "header"     // a segment's header
	KindFrame      Kind = "frame"      // an entry or another frame
	KindNote       Kind = "note"       // a note: damaged, or its body is not what its kind must say
	KindCommit     Kind = "commit"     // a commit, or the chain of commits
	KindFooter     Kind = "footer"     // a segment's footer, or bytes behind it
	KindDigest     Kind = "digest"     // SHA-256 over a segment's content, or the chain of these
	KindIndex      Kind = "index"      // an index file: missing, damaged, or not what its segment says
	KindFilter     Kind = "filter"     // a filter file: the same
	KindExtra      Kind = "extra"      // a file of the log that should not be there
	KindBlock      Kind = "block"      // a block of a compressed segment, or the index of its blocks
	KindRead       Kind = "read"       // the medium does not give bytes of a segment back
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind     Kind
	Path     string // file
	Offset   int64  // in the file, -1 when it does not apply
	FirstSeq uint64 // seqs that are affected, 0 when unknown or none
	LastSeq  uint64
	Detail   string
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s", f.Kind, f.Path)
	if f.Offset >= 0 {
		s += fmt.Sprintf(": offset %d", f.Offset)
	}
	switch {
	case f.FirstSeq != 0 && f.LastSeq > f.FirstSeq:
		s += fmt.Sprintf(": seq %d to %d", f.FirstSeq, f.LastSeq)
	case f.FirstSeq != 0:
		s += fmt.Sprintf(": seq %d", f.FirstSeq)
	}
	return s + ": " + f.Detail
}

// Options of a check. The zero value is useful.
type Options struct {
	OnFinding  func(Finding)           // called for each finding as soon as it is known; nil: not
	OnProgress func(done, total int64) // bytes of segments, called often; nil: not

	// OnEntry gets every entry that can be read, in seq order: before, between and behind damage too, even where the
	// commit that it belongs to is lost. What is in a torn tail is not among them. The view is valid during
	// the call. An error ends the check and is returned. nil: not.
	OnEntry func(*entry.View) error

	// OnNote gets every note that can be read, in the order of the log and between the entries that OnEntry gets. What a note's
	// body says is judged here, by whoever knows its kind: Note.Bad files a finding. The note is valid during the call. An
	// error ends the check and is returned. nil: not.
	OnNote func(*Note) error
}

// Note is a note that is being checked. Behind damage After may be less than it was, if the entries before the note are lost.
type Note struct {
	entry.Note
	Path   string
	Offset int64
	v      *verifier
}

// Bad files a finding about the note.
func (n *Note) Bad(detail string) {
	n.v.find(KindNote, n.Path, n.Offset, 0, 0, n.Kind.String()+" behind seq "+strconv.FormatUint(n.After, 10)+": "+detail)
}

// maxFindings bounds the findings that a Report keeps; the callback gets all.
const maxFindings = 10_000

// Report says what was checked and what was found.
type Report struct {
	Dir      string
	Run      string // run id; "" if nothing tells it
	Status   manifest.Status
	FirstSeq uint64                    // first seq of the run: above 1 once retention has removed what was in front
	Entries  uint64                    // that were verified
	ByKind   map[entry.NoteKind]uint64 // notes that were verified; kinds that the run has none of are not in it
	Segments int
	LastSeq  uint64
	Bytes    int64     // of segments
	Digest   string    // run_sha256 of the last sealed segment, recomputed; "" if there is none or it does not hold
	Count    int       // of all findings
	Findings []Finding // the first 10,000
	Notes    []string  // what is worth knowing and no damage: a torn tail, unfinished files
}

// Clean reports whether nothing was found.
func (r *Report) Clean() bool { return r.Count == 0 }

// verifier is one check of one run.
type verifier struct {
	ctx  context.Context
	fsys vfs.FS
	dir  string
	o    Options
	rep  Report
	errs []error

	total, done int64

	m          manifest.Manifest
	haveM      bool // m is the manifest itself, not what stands in for it
	sealed     bool // the manifest says so: then nothing is a torn tail
	over       bool // so does the last footer, with the manifest lost: no process is about to write what is missing
	identity   []byte
	names      map[string]bool
	indexes    map[uint32]bool
	filters    []index.Range
	stopped    bool // a segment of a newer version: nothing can be said of what follows
	lastSealed uint32
	absent     []Finding // derived files that were missing when they were looked for
	prevFloor  uint32    // number of the first segment, says the manifest's previous copy; 0: it cannot be read
	below      int       // segments that were checked, and then removed

	runID  string
	routes map[uint32]entry.Route // of the run, see remember
	c      carry
	segs   []sealedSeg
}

// sealedSeg is what filters need of a segment.
type sealedSeg struct {
	number uint32
	salt   uint64
	meta   index.Meta
	good   bool // its index is right
	keys   uint64
}

// carry is what one segment tells about the next.
type carry struct {
	chain       segment.Chain
	known       bool   // chain
	valueKnown  bool   // chain.Value
	salt        uint64 // of the segment before, 0 if unknown
	headerSize  int64  // of a segment whose header is good
	named       bool   // the segment before says that another one follows
	nextSalt    uint64 // and which; 0 if unknown
	ended       bool   // the log ends before here
	sha         [32]byte
	shaKnown    bool
	lastPublish int64
	published   bool
	maxInit     int64
	entries     uint64
	dropped     int64
	allGood     bool // every entry so far was read
	lastTopic   string
	lastType    string
	kinds       []string
}

// Run checks the run in dir. The error says what could not be checked; the report holds what was found nevertheless.
func Run(ctx context.Context, fsys vfs.FS, dir string, o Options) (Report, error) {
	v := &verifier{ctx: ctx, fsys: fsys, dir: dir, o: o, rep: Report{Dir: dir, ByKind: map[entry.NoteKind]uint64{}}}
	v.c.allGood, v.c.shaKnown, v.c.known, v.c.valueKnown, v.c.named = true, true, true, true, true
	if err := v.run(); err != nil {
		v.errs = append(v.errs, err)
	}
	return v.rep, errors.Join(v.errs...)
}

func (v *verifier) run() error {
	nums, err := v.list()
	if err != nil {
		return err
	}
	if err := v.readManifest(); err != nil {
		return err
	}
	nums = v.fromFloor(nums)
	v.readQuarantine()
	if err := v.segments(nums); err != nil || v.stopped {
		return err
	}
	v.checkManifest()
	if err := v.checkFilters(); err != nil {
		return err
	}
	v.checkExtras()
	v.checkAbsent()
	return nil
}

// list reads the folder and returns the segments' numbers.
func (v *verifier) list() ([]uint32, error) {
	info, err := v.fsys.Stat(v.dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &format.Error{Path: v.dir, Offset: -1, Why: "not a folder", Err: format.ErrNotRun}
	}
	entries, err := v.fsys.ReadDir(v.dir)
	if err != nil {
		return nil, err
	}
	v.names, v.indexes = map[string]bool{}, map[uint32]bool{}
	var nums []uint32
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			if name[0] != '.' {
				v.note("%s: a folder that is not part of the run", name)
			}
			continue
		}
		v.names[name] = true
		if n, ok := segment.ParseFileName(name); ok {
			nums = append(nums, n)
			if fi, err := v.fsys.Stat(v.path(name)); err == nil {
				v.total += fi.Size()
			}
		} else if n, ok := compressed.ParseFileName(name); ok {
			if len(nums) > 0 && nums[len(nums)-1] == n { // the list is by name: the plain one comes first
				v.beside(name)
				continue
			}
			nums = append(nums, n)
			v.names[segment.FileName(n)] = true // the segment is there, whatever its form
			v.total += v.plainSize(name)
		} else if n, ok := index.ParseFileName(name); ok {
			v.indexes[n] = true
		} else if r, ok := index.ParseFilterName(name); ok {
			v.filters = append(v.filters, r)
		} else if strings.HasSuffix(name, ".tmp") {
			v.note("%s: unfinished work of a process that died, or is at it", name)
		} else if !known(name) && name[0] != '.' {
			v.note("%s: a file that is not part of the run", name)
		}
	}
	if len(nums) == 0 && !v.names[manifest.FileName] && !v.names[manifest.PrevName] {
		v.rep.Notes = nil // they speak of a run
		return nil, &format.Error{Path: v.dir, Offset: -1, Why: "no segments and no manifest", Err: format.ErrNotRun}
	}
	return nums, nil
}

func known(name string) bool {
	return name == manifest.FileName || name == manifest.PrevName || name == manifest.QuarantineName
}

// segments checks all segments in order, and those that appear while it does.
func (v *verifier) segments(nums []uint32) error {
	next, most := v.m.FirstSegment(), len(nums)+maxNew
	if len(nums) == 0 {
		v.find(KindMissing, v.path(segment.FileName(next)), -1, v.m.FirstSeq(), 0, "the segment is not there")
		return nil
	}
	for i := 0; i < len(nums); i++ {
		n := nums[i]
		if n < next {
			continue // removed since the check began
		}
		if n > next {
			if v.appeared(next) { // a folder that changes is not listed as of one moment
				nums = append(nums[:i], append([]uint32{next}, nums[i:]...)...)
				i--
				continue
			}
			moved, err := v.floorMoved(next)
			if err != nil {
				return err
			}
			if moved {
				next = v.m.FirstSegment()
				i--
				continue
			}
			v.missing(next, n-1)
		}
		next = n + 1
		if err := v.segment(n); err != nil || v.stopped {
			return err
		}
		next = max(next, v.m.FirstSegment())                                              // it may have moved
		if i == len(nums)-1 && v.c.named && !v.c.ended && !v.sealed && v.appeared(next) { // a live run goes on
			if len(nums) >= most {
				v.note("the run has grown by %d segments since the check began; what follows was not checked", maxNew)
				return nil
			}
			nums = append(nums, next)
		}
	}
	if want := v.m.Segments; v.haveM && v.sealed && want >= next {
		v.missing(next, want)
	} else if v.c.named && !v.c.ended {
		v.missing(next, next)
	}
	return nil
}

// maxNew bounds how many segments of a live run are checked beyond those that were there at first: a writer can be
// faster than the check.
const maxNew = 64

// appeared reports whether a segment is there now that the listing did not have.
func (v *verifier) appeared(n uint32) bool {
	name := segment.FileName(n)
	f, err := compressed.OpenSegment(v.fsys, v.path(name))
	if err != nil {
		return false
	}
	_ = f.Close()
	v.names[name] = true
	return true
}

// plainSize is how much of a compressed segment is checked: the plain file's size.
func (v *verifier) plainSize(name string) (size int64) {
	if z, err := compressed.Open(v.fsys, v.path(name)); err == nil {
		size, _ = z.Size()
		_ = z.Close()
	}
	return size
}

// beside looks at a compressed file whose plain one is there, too, and counts: a pass was interrupted, or is at it.
func (v *verifier) beside(name string) {
	z, err := compressed.Open(v.fsys, v.path(name))
	if err == nil {
		defer z.Close()
		err = v.wholeCopy(z)
	}
	state := "it is whole"
	if err != nil {
		state = "it is damaged: " + detail(err)
	}
	v.note("%s: beside the plain file, which counts; %s", name, state)
}

// wholeCopy reads a compressed segment through against its own footer.
func (v *verifier) wholeCopy(z *compressed.File) error {
	size, err := z.Size()
	if err != nil {
		return err
	}
	p, err := compressed.ReadPlain(z, z.Name(), size)
	if err == nil {
		err = z.Check(&p.Header)
	}
	if err == nil {
		err = compressed.VerifyContent(z, z.Name(), p, v.ctx.Err)
	}
	return err
}

// missing reports a gap in the segments' numbers. What follows is checked by its own word.
func (v *verifier) missing(from, to uint32) {
	for n := from; n <= to; n++ {
		if n-from == 100 {
			v.find(KindMissing, v.path(segment.FileName(n)), -1, 0, 0, fmt.Sprintf("%d more segments are not there", to-n+1))
			break
		}
		first, last := uint64(0), uint64(0)
		if v.c.known && n == from {
			if first, last = v.c.chain.Seq+1, v.lastSeqOf(to); last < first {
				last = 0
			}
		}
		v.find(KindMissing, v.path(segment.FileName(n)), -1, first, last, "the segment is not there")
	}
	v.c.known, v.c.valueKnown, v.c.shaKnown, v.c.allGood, v.c.published = false, false, false, false, false
	v.c.salt, v.c.nextSalt, v.c.named, v.c.ended = 0, 0, true, false
}

func (v *verifier) path(name string) string { return filepath.Join(v.dir, name) }

func (v *verifier) find(kind Kind, path string, off int64, first, last uint64, detail string) {
	v.report(Finding{Kind: kind, Path: path, Offset: off, FirstSeq: first, LastSeq: last, Detail: detail})
}

func (v *verifier) report(f Finding) {
	v.rep.Count++
	if len(v.rep.Findings) < maxFindings {
		v.rep.Findings = append(v.rep.Findings, f)
	}
	if v.o.OnFinding != nil {
		v.o.OnFinding(f)
	}
}

// problem files an error about a file: as a finding if its content is bad, else as something that could not be checked.
func (v *verifier) problem(kind Kind, path string, err error) {
	var fe *format.Error
	bad := errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrWrongKind) || errors.Is(err, format.ErrMappingLost)
	switch {
	case !bad:
		v.errs = append(v.errs, err)
	case errors.As(err, &fe):
		detail := fe.Why
		if detail == "" && fe.Err != nil {
			detail = fe.Err.Error()
		}
		v.find(kind, path, fe.Offset, fe.FirstSeq, fe.LastSeq, detail)
	default:
		v.find(kind, path, -1, 0, 0, err.Error())
	}
}

func (v *verifier) note(format string, args ...any) {
	if len(v.rep.Notes) < 1000 {
		v.rep.Notes = append(v.rep.Notes, fmt.Sprintf(format, args...))
	}
}

func (v *verifier) progress(n int64) {
	v.done += n
	if v.o.OnProgress != nil {
		v.total = max(v.total, v.done)
		v.o.OnProgress(v.done, v.total)
	}
}
