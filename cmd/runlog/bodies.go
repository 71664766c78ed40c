package main

import (
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// bodies judges what the notes of a run say, in the pass in which verify reads them.
type bodies struct {
	at      *verify.Note // the one that is judged
	markers *markers.Verifier
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
	b.at = n
	b.markers.Add(n.Note)
	b.at = nil
	return nil
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
