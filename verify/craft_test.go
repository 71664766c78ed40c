package verify_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// crafted describes a sealed run of one segment, every checksum of which is right, with what a writer would never write.
type crafted struct {
	seqs     []uint64                 // with which the entries' frames are written; nil: no entries
	undef    uint64                   // seq of an entry whose route is not defined
	notes    []int                    // sizes of the state hashes that stand behind the entries
	strayRef entry.NoteKind           // kind of a note that the index lists where the commit stands
	stray    string                   // key that the index gives to seq 1 beside the entries' own
	manifest func(*manifest.Manifest) // changes the manifest
}

// last is the run's last seq.
func (c *crafted) last() uint64 {
	last := uint64(0)
	for _, s := range c.seqs {
		if s < 50 {
			last = max(last, s)
		}
	}
	return last
}

// make writes the run and returns its folder. Entry n has ts_init 10n-5 and the client order id "c".
func (c *crafted) make(t testing.TB) string {
	t.Helper()
	const salt = 0x1234567890
	id := manifest.Identity{
		Run: manifest.NewRunID(1_700_000_000_000_000_000, "", 7), Instance: "demo", Started: 1_700_000_000_000_000_000, Origin: manifest.OriginEngine,
	}
	dir := filepath.Join(t.TempDir(), id.Run)
	identity, err := manifest.EncodeIdentity(id)
	must(t, err)
	head := segment.EncodeHeader(segment.Header{Number: 1, Salt: salt, PlannedSize: segment.MinSegment, Created: 1, Identity: identity})
	off, first := int64(len(head)), segment.FirstChain(id.Run)

	var batch entry.Batch
	var enc segment.Encoder
	enc.Begin(salt, off)
	enc.Start(segment.Start{Prev: first, BaseTime: 1000})
	route := entry.Route{Topic: "orders", Type: "new"}
	enc.Route(1, route)
	dict := entry.NewDict(1000)
	dict.SetRoute(1, route)
	ix := index.NewBuilder(1)
	ft := segment.Footer{FirstSeq: 1, LastSeq: c.last(), LastOrdinal: 1, Flags: segment.FlagFinal | segment.FlagRecovered}
	for i, seq := range c.seqs {
		d := entry.Draft{Topic: route.Topic, Type: route.Type, TsInit: 10*int64(i+1) - 5, Payload: fmt.Appendf(nil, "payload %d.", i+1),
			Keys: []entry.Key{{Kind: entry.ClientOrderID, Value: "c"}}}
		batch.Add(&d, &entry.Kinds{}, 1001+int64(i))
		it, no := batch.At(i), uint32(1)
		if seq == c.undef {
			no = 7
		}
		at := enc.Next()
		enc.Entry(seq, 1000, no, &it)
		ix.AddEntry(uint64(i+1), at)
		ix.AddKey(entry.FingerprintString(entry.NoClientOrderID, "c"), uint64(i+1))
		ix.AddRoute(1)
		ix.AddTimes(d.TsInit, 1001+int64(i))
		ft.Entries++
	}
	for _, size := range c.notes {
		at := enc.Next()
		enc.Raw(uint8(entry.NoteStateHash), make([]byte, size))
		ix.AddNote(entry.NoteStateHash, at)
	}
	if c.strayRef != 0 {
		ix.AddNote(c.strayRef, enc.Next())
	}
	if c.stray != "" {
		ix.AddKey(entry.FingerprintString(entry.NoClientOrderID, c.stray), 1)
	}
	if n := int64(len(c.seqs)); n > 0 {
		ft.MinInit, ft.MaxInit, ft.MinPublish, ft.MaxPublish = 5, 10*n-5, 1001, 1000+n
	}
	commit := segment.Commit{Ordinal: 1, FirstSeq: 1, LastSeq: c.last(), Time: 1, Flags: segment.FlagFinal}
	b := append(head, enc.Commit(&commit, first.Value)...)
	ft.ContentEnd = int64(len(b))
	ft.Chain = format.Mix(first.Value + commitDigest(t, b, salt))
	h := segment.NewContentHash()
	_, _ = h.Write(b)
	h.Sum(ft.ContentSHA[:0])
	ft.RunSHA = segment.RunSHA([32]byte{}, 1, ft.ContentSHA)
	b = append(b, segment.EncodeFooter(&ft, salt)...)

	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, segment.FileName(1)), b, 0o644))
	meta := index.Meta{Number: 1, Salt: salt, Chain: ft.Chain, ContentEnd: ft.ContentEnd}
	data, err := index.Encode(ix, dict, meta)
	must(t, err)
	must(t, index.Write(vfs.OS, dir, index.FileName(1), data))
	m := manifest.Manifest{Identity: id, Status: manifest.CrashedRecovered, LastSeq: c.last(), Segments: 1, Digest: hex(ft.RunSHA)}
	if len(c.seqs) > 0 {
		m.Ended = &ft.MaxInit
	}
	if c.manifest != nil {
		c.manifest(&m)
	}
	must(t, manifest.Write(vfs.OS, dir, m))
	return dir
}

// commitDigest reads the digest back out of the only commit in b.
func commitDigest(t testing.TB, b []byte, salt uint64) (digest uint64) {
	t.Helper()
	segment.FindCommits(b, salt, 0, func(c segment.Commit) bool {
		digest = c.Digest
		return true
	})
	return digest
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
