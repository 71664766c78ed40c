package slow

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
)

// Verdict says how the log ends.
type Verdict string

// The verdicts.
const (
	Clean     Verdict = "clean"      // at a commit, and only zeros or a footer behind it
	Torn      Verdict = "torn"       // at a commit, and nothing proves that what is behind it was acknowledged
	Corrupt   Verdict = "corrupt"    // acknowledged data is damaged
	Missing   Verdict = "missing"    // so is a segment that must be there
	Version   Verdict = "version"    // something newer than these pages
	WrongKind Verdict = "wrong kind" // a runlog file of another kind than its name says
	NotRun    Verdict = "not a run"  // no manifest and no segment
)

// End says where the log ends and why.
type End struct {
	Verdict  Verdict
	File     string
	Offset   int64  // of the first frame that does not fit; -1 when it does not apply
	FirstSeq uint64 // first seq that is affected: the one behind the last that was read
	Why      string
}

// Entry is an entry.
type Entry struct {
	Seq                        uint64
	Topic, Type                string
	Payload                    []byte
	TsInit, TsPublish          int64
	ID, Correlation, Causation [16]byte
	Keys                       []Key

	route  uint64
	offset int64
}

// Note is a note behind the entry with seq After.
type Note struct {
	Kind  byte
	After uint64
	Body  []byte

	file   string
	offset int64
}

// Key is a key of an entry.
type Key struct {
	Kind, Value string

	no uint64
}

// Log is all that a run's folder says.
type Log struct {
	Run      string
	Entries  []Entry // of all whole batches in front of the damage, or of the end
	Notes    []Note  // of these batches
	Loose    []Entry // good entries that come next, of a damaged batch in a segment that has its footer
	Behind   []Entry // of those behind the damage, in the segments that can be read from their start frames
	End      End
	Open     End    // the damage that ends the log, if nothing can be read behind it; zero if the end is known
	Sealed   bool   // the end is a footer, or a commit that says final
	Torn     int64  // bytes behind the last commit of an unsealed run, up to the last that is not zero
	Dropped  uint64 // bytes that recovery has cut off, says the last footer
	Ordinal  uint64 // of the last commit
	Proven   uint64 // highest ordinal that is proven durable
	Durable  uint64 // last seq of it
	Segments int    // that were read
	Digest   string // run_sha256 of the last footer, if all hold
	Halt     string // halt record, JSON
	Findings []Finding

	files    map[string][]byte  // compressed segments as plain ones
	packed   map[string]*packed // which of them are compressed, by the plain name
	first    uint32             // number of the first segment that is part of the run: manifest.md, "Floor"
	floor    uint64             // its first seq
	baseTime *int64             // base_ended
	resumed  uint64             // first seq behind the first damage from which reading can go on, 0: from none
	lastGap  uint64             // first seq of the last damage
	uncut    []int              // segments with bytes behind their footers
	over     bool               // the manifest says that the run has ended
	last     commit             // K
	lastSalt uint64
	lastSHA  [32]byte
	seqAt    map[uint64]uint64 // last seq by ordinal
	kinds    map[uint64]string // declared
	dicts    map[string]*dict
	segs     []*segment
	footers  []*footer // of segs; nil: none
	startAt  []int     // index of each segment's first entry in Entries
}

// Finding is something that does not agree with the log, or a footer that does not hold.
type Finding struct {
	File string
	Why  string
}

func (l *Log) find(file, why string, args ...any) {
	l.Findings = append(l.Findings, Finding{file, fmt.Sprintf(why, args...)})
}

// SegmentName is the name of segment n.
func SegmentName(n uint32) string { return fmt.Sprintf("%08d.seg", n) }

// number reads a name such as 00000001.seg, or returns 0.
func number(name, ext string) (n uint32) {
	if len(name) != 8+len(ext) || name[8:] != ext {
		return 0
	}
	for _, c := range []byte(name[:8]) {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint32(c-'0')
	}
	return n
}

// Read reads a run: the files of its folder by name. Bytes are not changed, and not kept in what it returns.
func Read(files map[string][]byte) *Log {
	l := &Log{files: files, first: 1, floor: 1, seqAt: map[uint64]uint64{}, kinds: map[uint64]string{}, dicts: map[string]*dict{}}
	l.readFloor()
	l.expand()
	l.End = l.walk()
	l.checkManifest()
	if !l.End.Verdict.damaged() { // else nobody asks
		l.checkIndexes()
		l.checkFilters()
	}
	return l
}

// numbers lists the segments that are there.
func (l *Log) numbers(ext string) (ns []uint32) {
	for name := range l.files {
		if n := number(name, ext); n > 0 {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns
}

// end is a verdict about what comes behind the last commit.
func (l *Log) end(v Verdict, file string, off int64, why string) End {
	return End{Verdict: v, File: file, Offset: off, FirstSeq: l.last.lastSeq + 1, Why: why}
}

// damaged reports whether a verdict says that acknowledged data cannot be read.
func (v Verdict) damaged() bool { return v != Clean && v != Torn && v != NotRun }

// walk reads the log, and what can be read behind damage: a segment that was begun says where the log stood, and a
// footer where it stands.
func (l *Log) walk() End {
	if l.Run = l.manifestRun("manifest"); l.Run == "" {
		l.Run = l.manifestRun("manifest.prev")
	}
	end := l.walkFrom(l.first)
	if !end.Verdict.damaged() {
		l.Loose = nil // a torn tail is dropped
		return end
	}
	front, loose := len(l.Entries), []Entry(nil)
	if s := l.own(number(end.File, ".seg")); s != nil && end.Offset > 0 {
		if _, ok := s.footerAt(int64(len(s.data)) - footerFrame); ok {
			loose = l.Loose
		}
	}
	for last := end; last.Verdict.damaged(); {
		l.lastGap = last.FirstSeq
		n := l.resume(number(last.File, ".seg"))
		if n == 0 {
			if !l.Sealed {
				l.Open = last
			}
			break
		}
		if l.resumed == 0 {
			l.resumed = l.last.lastSeq + 1
		}
		l.Torn = 0
		last = l.walkFrom(n)
	}
	l.Entries, l.Behind, l.Loose = l.Entries[:front:front], l.Entries[front:], loose
	return end
}

// resume finds the segment, from the damaged one on, with which reading can go on.
func (l *Log) resume(damaged uint32) uint32 {
	if damaged == 0 {
		return 0
	}
	if s := l.own(damaged); s != nil {
		if f, ok := s.footerAt(int64(len(s.data)) - footerFrame); ok && f.lastSeq >= l.last.lastSeq && f.lastOrdinal >= l.last.ordinal {
			l.last = commit{ordinal: f.lastOrdinal, lastSeq: f.lastSeq, chain: f.chain, nextSalt: f.nextSalt, continues: f.continues, final: f.final}
			l.lastSalt = s.salt
			l.seqAt[f.lastOrdinal] = f.lastSeq
			l.prove(f.lastOrdinal)
			if f.continues {
				return damaged + 1
			}
			l.Sealed = true
			return 0
		}
	}
	for _, n := range l.numbers(".seg") {
		if n <= damaged {
			continue
		}
		s := l.own(n)
		if s == nil {
			continue
		}
		if st, ok := s.startAt(s.headerSize); ok && !st.detached && st.prevOrdinal >= l.last.ordinal && st.prevSeq >= l.last.lastSeq {
			l.last = commit{ordinal: st.prevOrdinal, lastSeq: st.prevSeq, chain: st.prevChain, nextSalt: s.salt}
			l.lastSalt = st.prevSalt
			l.seqAt[st.prevOrdinal] = st.prevSeq
			return n
		}
		if f, ok := s.footerAt(int64(len(s.data)) - footerFrame); ok && f.lastSeq >= l.last.lastSeq && f.lastOrdinal >= l.last.ordinal {
			return l.resume(n)
		}
	}
	return 0
}

// own returns segment n, if its header is good and says that it is that segment of the run.
func (l *Log) own(n uint32) *segment {
	name := SegmentName(n)
	s, verdict := openSegment(name, l.files[name])
	if verdict != Clean || s.number != n || l.Run != "" && l.Run != runOf(s) {
		return nil
	}
	return s
}

// manifestRun is the run that a manifest speaks of, "" if it cannot be read.
func (l *Log) manifestRun(name string) string {
	text, why := manifestText(l.files[name], "manifest")
	var id struct{ Run string }
	if why != "" || json.Unmarshal(text, &id) != nil {
		return ""
	}
	return id.Run
}

func runOf(s *segment) string {
	var id struct{ Run string }
	if json.Unmarshal(s.identity, &id) != nil {
		return ""
	}
	return id.Run
}

// walkFrom goes from segment to segment.
func (l *Log) walkFrom(first uint32) End {
	ns := l.numbers(".seg")
	if len(ns) == 0 && l.files["manifest"] == nil && l.files["manifest.prev"] == nil {
		return l.end(NotRun, "", -1, "neither manifest nor segment")
	}
	for n := first; ; n++ {
		name := SegmentName(n)
		data, there := l.files[name]
		if !there {
			return l.end(Missing, name, -1, "segment is not there")
		}
		s, verdict := openSegment(name, data)
		if p := l.packed[name]; p != nil && p.verdict != Clean {
			return l.end(p.verdict, name, 0, "header of a compressed segment")
		}
		if verdict != Clean {
			off := int64(0)
			if verdict == Corrupt {
				off = misfit(data)
			}
			return l.end(verdict, name, off, "segment header")
		}
		if s.number != n {
			return l.end(Corrupt, name, 32, "segment has another number than its name")
		}
		if n == 1 {
			if l.Run = runOf(s); l.Run == "" {
				return l.end(Corrupt, name, 64, "identity")
			}
			l.last.chain = xxh64([]byte(l.Run)) // segment.md, prev_chain
		} else if n == l.first { // "the state before the floor's segment is taken from its own start frame"
			st, ok := s.startAt(s.headerSize)
			if !ok || st.prevSeq+1 != l.floor {
				return l.end(Corrupt, name, s.headerSize, "segment does not begin at the floor")
			}
			l.last = commit{ordinal: st.prevOrdinal, lastSeq: st.prevSeq, chain: st.prevChain, nextSalt: s.salt}
			l.lastSalt, l.seqAt[st.prevOrdinal] = st.prevSalt, st.prevSeq
		} else if s.salt != l.last.nextSalt {
			return l.end(Corrupt, name, 16, "segment has another salt than the one before names")
		} else if len(l.segs) > 0 && !bytes.Equal(s.identity, l.segs[0].identity) {
			return l.end(Corrupt, name, 64, "segment has another identity than the first one")
		}
		l.segs, l.footers, l.startAt = append(l.segs, s), append(l.footers, nil), append(l.startAt, len(l.Entries))
		l.Segments++
		if end, more := l.segment(s); !more {
			return end
		}
		l.lastSalt = s.salt
	}
}

// segment reads a segment, batch by batch. more says that the log goes on in the next one.
func (l *Log) segment(s *segment) (end End, more bool) {
	d := newDict()
	l.dicts[s.name] = d
	pos, complete := s.headerSize, false
	var bad stop
	for !complete {
		if bad = l.batch(s, d, pos); bad.why != "" {
			break
		}
		pos, complete = l.last.end, l.last.final || l.last.continues
	}
	if f, ok := s.footerAt(pos); ok {
		if why := l.footer(s, f, complete); why != "" {
			return l.end(Corrupt, s.name, pos, why), false
		}
		l.prove(l.last.ordinal)
		if int64(len(s.data)) != pos+footerFrame {
			l.uncut = append(l.uncut, len(l.segs)-1)
		}
		if f.continues {
			return End{}, true
		}
		l.Sealed, l.Dropped = true, f.dropped
		return l.behindEnd(s.number, l.end(Clean, s.name, pos, "footer")), false
	}
	if f, ok := s.footerAt(int64(len(s.data)) - footerFrame); ok && !complete && !bad.version && f.lastSeq == l.last.lastSeq {
		// What is damaged takes no entry. "Readers" in guarantees.md: it does not end a scan.
		l.find(s.name, "offset %d: %s, behind the last entry", bad.off, bad.why)
		l.last.ordinal, l.last.chain, l.last.nextSalt, l.last.continues, l.last.final = f.lastOrdinal, f.chain, f.nextSalt, f.continues, f.final
		l.last.durable = f.lastOrdinal
		l.seqAt[f.lastOrdinal] = f.lastSeq
		pos, complete = int64(f.contentEnd), true
		if why := l.footer(s, f, complete); why != "" {
			return l.end(Corrupt, s.name, pos, why), false
		}
		l.prove(l.last.ordinal)
		if f.continues {
			return End{}, true
		}
		l.Sealed, l.Dropped = true, f.dropped
		return l.behindEnd(s.number, l.end(Clean, s.name, pos, "footer")), false
	}
	cut := uint64(len(s.data)) < s.planned
	switch {
	case complete:
		if cut {
			l.find(s.name, "file is shorter than planned and has no footer")
		}
		l.link(s, pos)
		if l.last.continues {
			return End{}, true
		}
		l.Sealed = true
		return l.behindEnd(s.number, l.end(Clean, s.name, pos, "final commit")), false
	case bad.version:
		return l.end(Version, s.name, bad.off, bad.why), false
	}
	// "Where the log ends".
	if proof := l.proof(s, pos); proof != "" {
		return l.end(Corrupt, s.name, bad.off, bad.why+"; "+proof), false
	}
	if cut {
		return l.end(Corrupt, s.name, int64(len(s.data)), "file is shorter than planned and has no footer"), false
	}
	if l.Torn = int64(len(bytes.TrimRight(s.data[pos:], "\x00"))); l.Torn == 0 {
		return l.behindEnd(s.number, l.end(Clean, s.name, pos, "zeros")), false
	}
	return l.behindEnd(s.number, l.end(Torn, s.name, bad.off, bad.why)), false
}

// behindEnd looks at the segments behind the one in which the log ends: a number that is missing there was one.
func (l *Log) behindEnd(last uint32, end End) End {
	for _, n := range l.numbers(".seg") {
		if n <= last {
			continue
		}
		if last++; n != last {
			return l.end(Missing, SegmentName(last), -1, "segment is not there")
		}
	}
	return end
}

// stop says why a batch is not whole.
type stop struct {
	off     int64
	why     string
	version bool
}

// batch reads the batch at pos and, if it is whole and fits the chain, makes its commit the last one.
func (l *Log) batch(s *segment, d *dict, pos int64) stop {
	l.Loose = nil
	var entries []Entry
	var notes []Note
	var halt string
	seq, frames := l.last.lastSeq, uint32(0)
	for off := pos; ; frames++ {
		f, ok := s.frameAt(off)
		if !ok {
			l.Loose = entries
			return stop{off: off, why: "no frame"}
		}
		if !known(f.kind) {
			l.Loose = entries
			return stop{off: off, why: fmt.Sprintf("frame of unknown kind %#x", f.kind), version: true}
		}
		ok = true
		switch {
		case off == s.headerSize && f.kind != kindStart:
			ok = false
		case isEntry(f.kind):
			var e Entry
			if ok = s.whole(f, seq+1); ok {
				e, ok = d.entry(f.kind, seq+1, f.body())
			}
			if ok {
				seq++
				e.offset = off
				entries = append(entries, e)
			}
		case !s.whole(f, 0):
			ok = false
		case f.kind == kindStart:
			st, table := s.startAt(off)
			ok = off == s.headerSize && table && !st.detached && st.prevOrdinal == l.last.ordinal && st.prevSeq == l.last.lastSeq &&
				st.prevChain == l.last.chain && st.prevSalt == l.lastSalt
			d.baseTime = st.baseTime
		case f.kind == kindRoute:
			ok = d.route(f.body())
		case f.kind == kindKey:
			ok = d.kind(f.body())
		case f.kind == kindHalt:
			halt = string(f.body())
		case isNote(f.kind):
			notes = append(notes, Note{Kind: f.kind, After: seq, Body: f.body(), file: s.name, offset: off})
		case f.kind == kindFooter:
			ok = false
		case f.kind == kindCommit:
			c, table := s.commitAt(off)
			digest := xxh64(s.data[pos:off])
			if !table || c.ordinal != l.last.ordinal+1 || c.durable >= c.ordinal || c.firstSeq != l.last.lastSeq+1 || c.lastSeq != seq ||
				int64(c.batchStart)*8 != pos || c.frames != frames || c.digest != digest ||
				c.chain != fmix64(l.last.chain+digest) || c.final && c.continues {
				ok = false
				break
			}
			l.last = c
			l.Ordinal, l.kinds = c.ordinal, d.kinds
			l.seqAt[c.ordinal] = seq
			l.Entries = append(l.Entries, entries...)
			l.Notes = append(l.Notes, notes...)
			if halt != "" {
				l.Halt = halt
			}
			l.prove(c.durable)
			return stop{}
		}
		if !ok {
			l.Loose = entries
			return stop{off: off, why: fmt.Sprintf("frame of kind %#x does not fit", f.kind)}
		}
		off = f.end
	}
}

// prove notes that a commit was durable.
func (l *Log) prove(ordinal uint64) {
	if ordinal > l.Proven {
		l.Proven, l.Durable = ordinal, l.seqAt[ordinal]
	}
}

// proof searches behind the last commit for something that says that one above it was durable.
func (l *Log) proof(s *segment, pos int64) string {
	if why := l.proofIn(s, pos); why != "" {
		return why
	}
	for _, n := range l.numbers(".seg") {
		if n <= s.number {
			continue
		}
		name := SegmentName(n)
		if later, verdict := openSegment(name, l.files[name]); verdict == Clean {
			if why := l.proofIn(later, later.headerSize); why != "" {
				return why
			}
		}
	}
	return ""
}

func (l *Log) proofIn(s *segment, pos int64) string {
	for ; pos < int64(len(s.data)); pos += 8 {
		if c, ok := s.commitAt(pos); ok && c.durable > l.last.ordinal {
			return fmt.Sprintf("the commit at %s:%d says that commit %d was durable", s.name, pos, c.durable)
		}
		if st, ok := s.startAt(pos); ok && st.detached && st.prevOrdinal > l.last.ordinal {
			return fmt.Sprintf("the halt record in %s says that commit %d was durable", s.name, st.prevOrdinal)
		}
		// reading-live.md: "a commit is proven by [...] a footer".
		if f, ok := s.footerAt(pos); ok && f.lastOrdinal > l.last.ordinal {
			return fmt.Sprintf("the footer of %s says that commit %d was durable", s.name, f.lastOrdinal)
		}
	}
	return ""
}

// footer checks a footer behind the last commit. What it returns contradicts the chain; digests and statistics that do
// not hold are findings.
func (l *Log) footer(s *segment, f footer, complete bool) string {
	switch {
	case f.final == f.continues:
		return "footer says neither final nor continues, or both"
	case complete && (l.last.final != f.final || l.last.continues && l.last.nextSalt != f.nextSalt):
		return "footer goes on otherwise than the last commit"
	case !complete && (!f.final || !f.recovered):
		return "footer behind a commit that ends nothing"
	case f.lastSeq != l.last.lastSeq || f.lastOrdinal != l.last.ordinal || f.chain != l.last.chain:
		return "footer is of another commit than the last one"
	}
	l.footers[len(l.footers)-1] = &f
	entries := l.Entries[l.startAt[len(l.startAt)-1]:]
	st := statsOf(entries)
	if f.entries != uint64(len(entries)) || len(entries) > 0 && f.firstSeq != entries[0].Seq || len(entries) == 0 && f.firstSeq <= f.lastSeq ||
		f.minInit != st.minInit || f.maxInit != st.maxInit || f.minPublish != st.minPublish || f.maxPublish != st.maxPublish {
		l.find(s.name, "footer: numbers or times are not those of the entries")
	}
	if l.link(s, int64(f.contentEnd)) != f.content {
		l.find(s.name, "footer: SHA-256 of the content")
	}
	if l.lastSHA != f.run {
		l.find(s.name, "footer: SHA-256 of the run")
	}
	l.Digest = fmt.Sprintf("%x", l.lastSHA)
	return ""
}

// link adds a segment to the SHA-256 chain and returns the SHA-256 of its content.
func (l *Log) link(s *segment, contentEnd int64) [32]byte {
	content := sha256.Sum256(s.data[:contentEnd])
	chain := append([]byte("runlog segment chain v1\n"), l.lastSHA[:]...)
	chain = binary.LittleEndian.AppendUint64(chain, uint64(s.number))
	l.lastSHA = sha256.Sum256(append(chain, content[:]...))
	return content
}

// stats are the bounds that footers and indexes repeat.
type stats struct{ minInit, maxInit, minPublish, maxPublish int64 }

func statsOf(entries []Entry) (s stats) {
	for i, e := range entries {
		if i == 0 {
			s = stats{e.TsInit, e.TsInit, e.TsPublish, e.TsPublish}
		}
		s.minInit, s.maxInit = min(s.minInit, e.TsInit), max(s.maxInit, e.TsInit)
		s.minPublish, s.maxPublish = min(s.minPublish, e.TsPublish), max(s.maxPublish, e.TsPublish)
	}
	return s
}
