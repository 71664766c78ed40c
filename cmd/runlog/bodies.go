package main

import (
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// bodies judges what the notes of a run say, in the pass in which verify reads them.
type bodies struct {
	at      *verify.Note // the one that is judged
	markers *markers.Verifier
	covered uint64   // by the last anchor
	hashed  uint64   // by the last state hash
	late    []string // what is wrong with the notes as a whole
	copied  bool     // the run is an import, so that it ended says nothing of the one that it was
}

func newBodies(dir string) *bodies {
	m, _, err := manifest.Read(vfs.OS, dir)
	b := &bodies{copied: m.Origin == manifest.OriginImport}
	b.markers = markers.NewVerifier(err == nil && m.Floor > 0, b.marker)
	return b
}

func (b *bodies) note(n *verify.Note) error {
	switch n.Kind {
	case entry.NoteAnchor:
		a, err := anchor.Decode(n.Body)
		b.about(n, &b.covered, a.Covers, err)
	case entry.NoteStateHash:
		h, err := anchor.DecodeStateHash(n.Body)
		b.about(n, &b.hashed, h.Seq, err)
	default:
		b.at = n
		b.markers.Add(n.Note)
		b.at = nil
	}
	return nil
}

// about judges a note that is about a seq. before is what the one of its kind before it was about.
func (b *bodies) about(n *verify.Note, before *uint64, seq uint64, err error) {
	if err != nil {
		n.Bad(err.Error())
		return
	}
	if err := anchor.CheckOrder(n.Kind.String(), seq, *before, n.After); err != nil {
		n.Bad(err.Error())
	}
	*before = seq
}

func (b *bodies) marker(f markers.Finding) {
	detail := string(f.Problem) + ": " + f.Detail
	if b.at == nil {
		b.late = append(b.late, detail)
		return
	}
	b.at.Bad(detail)
}

// end returns what is wrong with the notes as a whole.
func (b *bodies) end(rep *verify.Report) []string {
	status := rep.Status
	if b.copied && status == manifest.Ended {
		status = manifest.CrashedRecovered
	}
	b.markers.End(status, rep.LastSeq)
	return b.late
}
