package main

import (
	"fmt"
	"iter"
	"strings"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/wal"
)

// noteJSON is a note in cat --notes --json.
type noteJSON struct {
	Note  string `json:"note"`  // its kind
	After uint64 `json:"after"` // seq of the entry that it stands behind; 0: it stands in front of the first one
	Body  []byte `json:"body_base64"`
}

// noteName is what a kind of notes is called in JSON.
func noteName(k entry.NoteKind) string { return strings.ReplaceAll(k.String(), " ", "_") }

// andNotes is a count of notes behind another count; nothing if there are none.
func andNotes(n uint64) string {
	if n == 0 {
		return ""
	}
	return " and " + number(n, "note", "notes")
}

// printWithNotes prints entries and the notes between them, in the order of the log.
func (a *app) printWithNotes(r *runlog.Reader, o runlog.ScanOptions, limit uint64) error {
	next, stop := iter.Pull2(r.Notes(wal.NoteOptions{From: o.From, To: o.To}))
	defer stop()
	p := notePrinter{a: a, next: next}
	p.step()
	printed := uint64(0)
	for v, err := range r.Scan(o) {
		if err != nil {
			_ = p.before(^uint64(0)) // whatever is good comes first; the scan's error says the same
			return err
		}
		if err := p.before(v.Seq()); err != nil {
			return err
		}
		p.entry(&v)
		if printed++; printed == limit || a.out.failed() {
			return nil
		}
		if printed%1024 == 0 && a.ctx.Err() != nil {
			return a.ctx.Err()
		}
	}
	return p.before(^uint64(0))
}

// notePrinter prints notes in front of the entry that follows them.
type notePrinter struct {
	a    *app
	next func() (entry.Note, error, bool)
	note entry.Note
	err  error
	more bool // note, or err, is still to be printed

	enc   encoder
	lines lineFormat
}

func (p *notePrinter) step() { p.note, p.err, p.more = p.next() }

// before prints the notes in front of an entry.
func (p *notePrinter) before(seq uint64) error {
	for p.more && (p.err != nil || p.note.After < seq) {
		if p.err != nil {
			return p.err
		}
		p.print(&p.note)
		if p.a.out.failed() {
			return nil
		}
		p.step()
	}
	return nil
}

func (p *notePrinter) entry(v *runlog.View) {
	if p.a.json {
		_, _ = p.a.out.Write(p.enc.line(v))
	} else {
		p.lines.print(p.a, v)
	}
}

func (p *notePrinter) print(n *entry.Note) {
	if p.a.json {
		_ = p.a.printJSON(noteJSON{Note: noteName(n.Kind), After: n.After, Body: n.Body})
		return
	}
	limit := 80
	if p.a.full {
		limit = -1
	}
	p.a.out.line("%s", strings.TrimRight(fmt.Sprintf("%*s  %s  %s", max(p.lines.seq, 6), "note", n.Kind, payloadText(n.Body, limit)), " "))
}
