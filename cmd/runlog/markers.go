package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
)

// streamJSON is a stream in seen --json and markers --json.
type streamJSON struct {
	Slot    uint32 `json:"slot"`
	Class   string `json:"class,omitempty"`
	ID      string `json:"id,omitempty"`
	Count   uint64 `json:"count"`
	Lowest  *int64 `json:"lowest,omitempty"`
	Highest *int64 `json:"highest,omitempty"`
}

// seenJSON is seen --json.
type seenJSON struct {
	Seq     uint64       `json:"seq"`
	Loss    string       `json:"loss"`
	Records uint64       `json:"records"`
	Taken   int64        `json:"taken"`
	Final   bool         `json:"final"`
	Streams []streamJSON `json:"streams"`
}

// markerJSON is a line of markers --json.
type markerJSON struct {
	Record    string `json:"record"` // snapshot, cursor, marker, gap, finding
	MarkerSeq uint64 `json:"marker_seq,omitempty"`
	After     uint64 `json:"after"`
	Taken     *int64 `json:"taken,omitempty"`

	Snapshot uint64       `json:"snapshot,omitempty"`
	Total    *uint32      `json:"total,omitempty"`
	First    *uint32      `json:"first,omitempty"`
	Final    bool         `json:"final,omitempty"`
	Whole    bool         `json:"whole,omitempty"`
	Streams  []streamJSON `json:"streams,omitempty"`

	Slot        *uint32 `json:"slot,omitempty"`
	Class       string  `json:"class,omitempty"`
	ID          string  `json:"id,omitempty"`
	TsEvent     *int64  `json:"ts_event,omitempty"`
	TsInit      *int64  `json:"ts_init,omitempty"`
	Ordinal     *uint32 `json:"ordinal,omitempty"`
	Fingerprint string  `json:"fingerprint,omitempty"`

	To         uint64  `json:"to,omitempty"`
	FirstAfter *uint64 `json:"first_after,omitempty"`
	FirstTime  *int64  `json:"first_time,omitempty"`
	LastTime   *int64  `json:"last_time,omitempty"`
	Cursors    *uint64 `json:"cursors,omitempty"`
	Markers    *uint64 `json:"markers,omitempty"`
	Refused    *uint64 `json:"refused,omitempty"`
	Reason     string  `json:"reason,omitempty"`

	Problem string `json:"problem,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

func streamsJSON(list []markers.Cursor) []streamJSON {
	out := []streamJSON{}
	for _, c := range list {
		s := streamJSON{Slot: c.Slot, Class: c.Class, ID: c.ID, Count: c.Count}
		if c.Count > 0 {
			s.Lowest, s.Highest = &c.Lowest, &c.Highest
		}
		out = append(out, s)
	}
	return out
}

func (a *app) seenCmd() *cobra.Command {
	return &cobra.Command{
		Use: "seen RUN SEQ", Short: "Print what market data the engine had seen when it made an entry",
		Long: `seen adds up the stream markers in front of an entry: of each stream, how many messages the engine had seen, and the lowest
and highest ts_init among them. It says whether records were dropped in front of the entry. A run without markers is exit code 2.`,
		Example: `  runlog seen runs/demo/2026* 1017
  runlog seen runs/demo/2026* 1017 --json | jq '.streams[] | select(.class == "quote")'`,
		Args: exactly("RUN", "SEQ"),
		RunE: func(_ *cobra.Command, args []string) error {
			seq, err := parseSeq(args[1])
			if err != nil {
				return err
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				if _, err := getEntry(r, seq); err != nil {
					return err
				}
				st, err := markers.Open(r).SeenAt(seq)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(seenJSON{Seq: st.Seq, Loss: st.Loss.String(), Records: st.Records, Taken: st.Taken, Final: st.Final,
						Streams: streamsJSON(st.Cursors)})
				}
				a.printSeen(&st)
				return nil
			})
		},
	}
}

func (a *app) printSeen(st *markers.State) {
	t, messages := table{right: map[int]bool{2: true}}, uint64(0)
	for _, c := range st.Cursors {
		if c.Count == 0 {
			continue
		}
		messages += c.Count
		t.add(printable(c.Class, -1), printable(c.ID, -1), count(c.Count), formatTime(c.Lowest), formatTime(c.Highest))
	}
	loss := map[markers.Loss]string{
		markers.None: "nothing is missing", markers.Some: "records in front of it were dropped: it may have been more",
		markers.Unknown: "nothing behind it tells whether records were dropped",
	}
	streams := len(t.rows)
	t.print(a.out)
	a.out.line("seq %d: %s messages of %d streams; %s", st.Seq, count(messages), streams, loss[st.Loss])
}

func (a *app) markersCmd() *cobra.Command {
	var from, to, limit uint64
	check := false
	cmd := &cobra.Command{
		Use: "markers RUN", Short: "Print a run's stream markers, or check them",
		Long: `markers prints the records of what market data the engine has seen, in the order of the log: snapshots of all streams, cursors
of those that had advanced, markers of single messages, and gaps for what was dropped. With --check it prints what is wrong with them
instead; exit code 1 then says that something is.`,
		Example: `  runlog markers runs/demo/2026* --from 1000 --to 1017
  runlog markers runs/demo/2026* --json | jq 'select(.record == "gap")'
  runlog markers runs/demo/2026* --check`,
		Args: exactly("RUN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && to == 0 {
				return fmt.Errorf("--to 0: seqs start at 1")
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				if check {
					return a.checkMarkers(r)
				}
				return a.printMarkers(r, from, to, limit)
			})
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "only records behind this entry, and later ones")
	f.Uint64Var(&to, "to", 0, "only records behind this entry, and earlier ones")
	f.Uint64Var(&limit, "limit", 0, "stop after so many records; 0: never")
	f.BoolVar(&check, "check", false, "print what is wrong with the records")
	a.fullFlag(cmd)
	return cmd
}

func (a *app) printMarkers(r *runlog.Reader, from, to, limit uint64) error {
	n := uint64(0)
	for rec, err := range markers.Open(r).Records(from, to) {
		if err != nil {
			return err
		}
		if a.json {
			if err := a.printJSON(recordJSON(&rec)); err != nil {
				return err
			}
		} else {
			a.out.line("%s", a.recordLine(&rec))
		}
		if n++; n == limit || a.out.failed() {
			return nil
		}
		if n%1024 == 0 && a.ctx.Err() != nil {
			return a.ctx.Err()
		}
	}
	return nil
}

func (a *app) checkMarkers(r *runlog.Reader) error {
	sum, err := markers.Verify(a.ctx, r, func(f markers.Finding) {
		a.found = true
		if !a.json {
			a.out.line("%s", printable(f.String(), -1))
			return
		}
		_ = a.printJSON(markerJSON{Record: "finding", MarkerSeq: f.Record, After: f.After, Problem: string(f.Problem), Detail: f.Detail})
	})
	if err != nil || a.json {
		return err
	}
	verdict := "ok"
	if sum.Findings > 0 {
		verdict = fmt.Sprintf("BAD, %d findings", sum.Findings)
	}
	if !sum.Any() {
		a.out.line("%s: no markers", r.Dir())
		return nil
	}
	a.out.line("%s: %s: %d streams; %s cursors, %s markers, %d snapshots, %d gaps for %s dropped records", r.Dir(), verdict, sum.Streams,
		count(sum.Cursors), count(sum.Markers), sum.Snapshots, sum.Gaps, count(sum.Dropped))
	return nil
}

func recordJSON(rec *markers.Record) markerJSON {
	j := markerJSON{MarkerSeq: rec.Seq, After: rec.After}
	switch rec.Kind {
	case entry.NoteStreams:
		p := &rec.Part
		j.Record, j.Taken, j.Snapshot, j.Total, j.First, j.Final = "snapshot", &rec.Taken, p.Snapshot, &p.Streams, &p.First, p.Final
		j.Streams = streamsJSON(rec.Cursors)
	case entry.NoteCursor:
		j.Record, j.Taken, j.Whole, j.Streams = "cursor", &rec.Taken, rec.Whole, streamsJSON(rec.Cursors)
	case entry.NoteMarker:
		m := &rec.Marker
		j.Record, j.Slot, j.Class, j.ID, j.TsEvent, j.TsInit, j.Ordinal = "marker", &m.Slot, m.Class, m.ID, &m.TsEvent, &m.TsInit, &m.Ordinal
		j.Fingerprint = hex.EncodeToString(m.Fingerprint[:])
	case entry.NoteGap:
		g := &rec.Gap
		j.Record, j.To, j.FirstAfter, j.FirstTime, j.LastTime, j.Reason = "gap", g.To, &g.FirstAfter, &g.FirstTime, &g.LastTime, g.Reason.String()
		j.Cursors, j.Markers, j.Refused = &g.Cursors, &g.Markers, &g.Refused
	}
	return j
}

// recordLine shows a record in one line.
func (a *app) recordLine(rec *markers.Record) string {
	var text string
	switch rec.Kind {
	case entry.NoteStreams:
		text = fmt.Sprintf("%s  snapshot %d: streams %d to %d of %d", formatTime(rec.Taken), rec.Part.Snapshot, rec.Part.First,
			int(rec.Part.First)+len(rec.Cursors)-1, rec.Part.Streams)
		if len(rec.Cursors) == 0 {
			text = fmt.Sprintf("%s  snapshot %d: no streams", formatTime(rec.Taken), rec.Part.Snapshot)
		}
		if rec.Part.Final {
			text += ", final"
		}
	case entry.NoteCursor:
		var list []string
		for _, c := range rec.Cursors {
			list = append(list, fmt.Sprintf("%s %s", streamName(c.Slot, c.Class, c.ID), count(c.Count)))
		}
		text = formatTime(rec.Taken) + "  cursor: " + strings.Join(list, ", ")
	case entry.NoteMarker:
		m := &rec.Marker
		text = fmt.Sprintf("%s  marker: %s #%d %x", formatTime(m.TsInit), streamName(m.Slot, m.Class, m.ID), m.Ordinal, m.Fingerprint[:8])
	case entry.NoteGap:
		g := &rec.Gap
		text = fmt.Sprintf("%s  gap: records %d to %d were dropped: %s cursors, %s markers, %s refused (%s)", formatTime(g.FirstTime), g.From, g.To,
			count(g.Cursors), count(g.Markers), count(g.Refused), g.Reason)
	}
	limit := 160
	if a.full {
		limit = -1
	}
	return fmt.Sprintf("%6d  %s", rec.After, printable(text, limit))
}

func streamName(slot uint32, class, id string) string {
	if class == "" { // the part of the log that has it is not there any more
		return "slot " + strconv.FormatUint(uint64(slot), 10)
	}
	return class + "/" + id
}
