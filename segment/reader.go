package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// ErrShort: the frame goes beyond the bytes at hand; read more.
var ErrShort = errors.New("frame continues beyond the bytes read")

// IsShort reports whether the error says that a frame or batch goes beyond the bytes at hand.
func IsShort(err error) bool { return errors.Is(err, ErrShort) }

// Batch is a verified batch in place.
type Batch struct {
	Commit Commit
	Next   Chain  // state after it
	Raw    []byte // the frames, commit excluded; Raw[0] lies at Commit.BatchStart
}

// Stop says why no batch was found where one could begin.
type Stop struct {
	Offset  int64 // of the first byte that does not fit
	Zero    bool  // eight zero bytes stand there
	Footer  bool  // a footer frame stands there, unverified
	Unknown bool  // a valid frame of a kind that this version does not know
	Why     string
}

func (s *Stop) Error() string { return fmt.Sprintf("offset %d: %s", s.Offset, s.Why) }

// ReadBatch verifies the batch at b[0:], which lies at off: every head, the commit's sum, that it continues prev, and
// the digest. It returns a *Stop if there is no whole batch, or an error for which IsShort holds if b may be too
// short.
func ReadBatch(b []byte, salt uint64, off int64, prev Chain) (Batch, error) {
	var (
		at      int64
		digest  runningDigest
		touched int64
		entries uint64
		frames  uint32
	)
	for {
		if at >= touched && at < int64(len(b)) {
			touched = min((off+at)|(BlockSize-1)+1-off, int64(len(b)))
			digest.reach(b, at)
			Touch(b[at:touched])
		}
		word, _, st := parseHead(b[at:], salt, off+at)
		switch st {
		case headValid:
		case headShort:
			return Batch{}, ErrShort
		case headZero:
			return Batch{}, &Stop{Offset: off + at, Zero: true, Why: "zeros"}
		default:
			return Batch{}, &Stop{Offset: off + at, Why: "frame head does not validate"}
		}
		switch kind := uint8(word >> 24); {
		case kind&^EntryFlags == KindEntry:
			entries++
		case kind == KindCommit:
			f, _ := parseFrame(b[at:], salt, off+at)
			return finishBatch(b[:at], &digest, &f, off, prev, entries, frames)
		case kind == KindFooter:
			if at == 0 {
				return Batch{}, &Stop{Offset: off, Footer: true, Why: "footer"}
			}
			return Batch{}, &Stop{Offset: off + at, Why: "footer inside a batch"}
		case !known(kind):
			return Batch{}, &Stop{Offset: off + at, Unknown: true, Why: fmt.Sprintf("frame kind %#x", kind)}
		}
		frames++
		at += int64(sizeOf(word))
	}
}

// Touch reads a byte of each cache line. The place of a head is known only when the one before has come from memory, so a
// walk from head to head waits for memory at each; this lets a whole block come at once. The digest needs it next anyway.
// It must not go beyond a block that the walk needs: of a mapped file that was cut short, it may be the last one.
//
//go:noinline
func Touch(b []byte) (any byte) {
	for i := 0; i < len(b); i += 64 {
		any |= b[i]
	}
	return any
}

// known reports whether a reader may go on behind a frame of this kind.
func known(kind uint8) bool {
	return kind >= KindPad && kind <= KindHalt || entry.NoteKind(kind).Valid() || kind >= 0x40 && kind < KindEntry
}

// runningDigest hashes a batch piece by piece, while each is in the cache that the walk over its heads has fetched it into. The zero
// value is ready. All of a small batch is hashed at once.
type runningDigest struct {
	d      xxhash.Digest
	hashed int64
}

const hashPiece = 32 // what the hash takes at a time: in multiples of it, nothing needs to be kept

// reach hashes what is in front of at.
func (r *runningDigest) reach(b []byte, at int64) {
	if at &^= hashPiece - 1; at <= r.hashed {
		return
	}
	if r.hashed == 0 {
		r.d.Reset()
	}
	_, _ = r.d.Write(b[r.hashed:at])
	r.hashed = at
}

// sum is the digest of all of raw.
func (r *runningDigest) sum(raw []byte) uint64 {
	if r.hashed == 0 {
		return xxhash.Sum64(raw)
	}
	_, _ = r.d.Write(raw[r.hashed:])
	return r.d.Sum64()
}

func finishBatch(raw []byte, digest *runningDigest, f *Frame, off int64, prev Chain, entries uint64, frames uint32) (Batch, error) {
	stop := func(why string) (Batch, error) { return Batch{}, &Stop{Offset: f.Offset, Why: "commit: " + why} }
	c, ok := DecodeCommit(f)
	switch {
	case !ok:
		return stop("does not validate")
	case c.Ordinal != prev.Ordinal+1:
		return stop(fmt.Sprintf("ordinal %d after %d", c.Ordinal, prev.Ordinal))
	case c.FirstSeq != prev.Seq+1 || c.LastSeq != prev.Seq+entries:
		return stop(fmt.Sprintf("seq %d to %d, found %d entries after seq %d", c.FirstSeq, c.LastSeq, entries, prev.Seq))
	case c.BatchStart != off || c.Frames != frames:
		return stop("does not belong to the frames before it")
	case digest.sum(raw) != c.Digest:
		return Batch{}, &Stop{Offset: off, Why: "the batch's digest does not match"}
	case format.Mix(prev.Value+c.Digest) != c.Chain:
		return stop("does not continue the chain")
	}
	next := Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: max(prev.Durable, c.Durable)}
	return Batch{Commit: c, Next: next, Raw: raw}, nil
}

// DecodeCommit verifies and decodes a commit frame.
func DecodeCommit(f *Frame) (c Commit, ok bool) {
	if f.Kind != KindCommit || len(f.Body) != commitBody || !f.Verify() {
		return c, false
	}
	b := f.Body
	c = Commit{
		Ordinal: le.Uint64(b[cmOrdinal:]), Durable: le.Uint64(b[cmDurable:]),
		FirstSeq: le.Uint64(b[cmFirstSeq:]), LastSeq: le.Uint64(b[cmLastSeq:]),
		Digest: le.Uint64(b[cmDigest:]), Chain: le.Uint64(b[cmChain:]), NextSalt: le.Uint64(b[cmNextSalt:]),
		Time: int64(le.Uint64(b[cmTime:])), BatchStart: int64(le.Uint32(b[cmBatchStart:])) * 8,
		Frames: le.Uint32(b[cmFrames:]), Flags: le.Uint64(b[cmFlags:]), Offset: f.Offset,
	}
	return c, true
}

// FindCommits calls found for every valid commit frame at any 8-byte position of b, which lies at off. It looks for
// evidence behind damage, so it trusts nothing else. It stops when found returns false.
func FindCommits(b []byte, salt uint64, off int64, found func(Commit) bool) {
	const word = uint32(CommitSize) | KindCommit<<24
	for at := 0; at+CommitSize <= len(b); at += 8 {
		if le.Uint32(b[at:]) != word {
			continue
		}
		f, st := parseFrame(b[at:], salt, off+int64(at))
		if st != headValid {
			continue
		}
		if c, ok := DecodeCommit(&f); ok && !found(c) {
			return
		}
	}
}

// Next returns the frame at raw[at:] of a verified batch that lies at off, so only its head is checked again.
func Next(raw []byte, salt uint64, off, at int64) (Frame, error) {
	f, st := parseFrame(raw[at:], salt, off+at)
	if st != headValid {
		return f, &format.Error{Offset: off + at, Why: "frame head does not validate", Err: format.ErrCorrupt}
	}
	return f, nil
}

// Inside returns kind, size and body of the frame at raw[at:] of a batch that ReadBatch has verified, so nothing is checked
// again but that it lies in there: ok is false if it does not, as when the file has changed since. A pad has no body.
func Inside(raw []byte, at int64) (kind uint8, size int64, body []byte, ok bool) {
	if b := raw[at:]; len(b) >= wordSize {
		word := le.Uint32(b)
		length, end := int(word&MaxFrame), sizeOf(word)
		if kind = uint8(word >> 24); kind == KindPad {
			return kind, int64(end), nil, end >= wordSize && end <= len(b)
		}
		if length >= HeadSize && end <= len(b) {
			return kind, int64(end), b[HeadSize:length], true
		}
	}
	return 0, 0, nil, false
}

// ReadCommit verifies and decodes the commit frame at b[0:], which lies at off.
func ReadCommit(b []byte, salt uint64, off int64) (Commit, bool) {
	f, st := parseFrame(b, salt, off)
	if st != headValid {
		return Commit{}, false
	}
	return DecodeCommit(&f)
}

// Frames calls visit for each frame of raw, the bytes of a verified batch that lies at off and whose first entry is
// firstSeq. Sums are not checked again: the batch's digest vouches for the bytes.
func Frames(raw []byte, salt uint64, off int64, firstSeq uint64, visit func(f *Frame) error) error {
	for at := int64(0); at < int64(len(raw)); {
		f, err := Next(raw, salt, off, at)
		if err != nil {
			return err
		}
		if f.IsEntry() {
			f.Seq = firstSeq
			firstSeq++
		}
		if err := visit(&f); err != nil {
			return err
		}
		at += f.Size
	}
	return nil
}

// DecodeStart verifies and decodes the first frame of a segment. ok is false if there is none.
func DecodeStart(b []byte, salt uint64, off int64) (s Start, ok bool) {
	f, st := parseFrame(b, salt, off)
	if st != headValid || f.Kind != KindStart || len(f.Body) != startBody || !f.Verify() {
		return s, false
	}
	return Start{
		Prev: Chain{
			Ordinal: le.Uint64(f.Body[stPrevOrdinal:]), Seq: le.Uint64(f.Body[stPrevSeq:]), Value: le.Uint64(f.Body[stPrevChain:]),
		},
		BaseTime: int64(le.Uint64(f.Body[stBaseTime:])), PrevSalt: le.Uint64(f.Body[stPrevSalt:]),
		Detached: le.Uint64(f.Body[stFlags:])&FlagDetached != 0,
	}, true
}

// maxRouteNo bounds a route's number, and so what a malformed frame can make a dictionary allocate.
const maxRouteNo = 1 << 20

// uvarint decodes a number in its shortest form and returns what follows it.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, b, false
	}
	return v, b[n:], true
}

// Learn takes a dictionary frame into dict; other frames are left alone.
func Learn(f *Frame, dict *entry.Dict) error {
	switch f.Kind {
	case KindRoute:
		no, rest, ok := uvarint(f.Body)
		if !ok || no == 0 || no > maxRouteNo {
			return malformed(f, "route number")
		}
		tl, rest, ok := uvarint(rest)
		if !ok || tl == 0 || tl > entry.MaxTopic || tl >= uint64(len(rest)) || uint64(len(rest))-tl > entry.MaxType ||
			!utf8.Valid(rest[:tl]) || !utf8.Valid(rest[tl:]) {
			return malformed(f, "route strings")
		}
		dict.SetRoute(uint32(no), entry.Route{Topic: string(rest[:tl]), Type: string(rest[tl:])})
	case KindKeyKind:
		no, name, ok := uvarint(f.Body)
		if !ok || no < uint64(entry.FirstUserKind) {
			return malformed(f, "key kind")
		}
		kinds, got, err := dict.Kinds().With(string(name))
		if err != nil || uint64(got) != no {
			return malformed(f, fmt.Sprintf("key kind %d is out of order", no))
		}
		dict.SetKinds(kinds)
	}
	return nil
}

func malformed(f *Frame, what string) error {
	return &format.Error{Offset: f.Offset, Why: what, Err: format.ErrCorrupt}
}

// FrameLen is the size, padding included, that the head at b[0:] claims. The head has been checked by whoever asks.
func FrameLen(b []byte) int { return sizeOf(le.Uint32(b)) }
