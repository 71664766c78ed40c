package main

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
)

// selection holds the flags that cat and export share.
type selection struct {
	from, to     uint64
	reverse      bool
	topic, typ   string
	since, until string
	by           string
	limit        uint64
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint64Var(&s.from, "from", 0, "first seq")
	f.Uint64Var(&s.to, "to", 0, "last seq; one beyond the end is the end")
	f.StringVar(&s.topic, "topic", "", "only entries with exactly this topic")
	f.StringVar(&s.typ, "type", "", "only entries with exactly this payload type")
	f.StringVar(&s.since, "since", "", "only entries from this time on: RFC 3339, or ns since 1970")
	f.StringVar(&s.until, "until", "", "only entries up to this time, inclusive")
	f.StringVar(&s.by, "by", "publish", "which time --since and --until are about: publish or init")
	f.Uint64Var(&s.limit, "limit", 0, "stop after so many entries")
}

func (s *selection) options(cmd *cobra.Command) (o runlog.ScanOptions, err error) {
	o = runlog.ScanOptions{From: s.from, To: s.to, Reverse: s.reverse, Topic: s.topic, Type: s.typ}
	changed := cmd.Flags().Changed
	if changed("to") && s.to == 0 {
		return o, fmt.Errorf("--to 0: seqs start at 1")
	}
	for _, name := range [...]string{"topic", "type", "since", "until"} {
		if changed(name) && cmd.Flag(name).Value.String() == "" {
			return o, fmt.Errorf("--%s is empty", name)
		}
	}
	if changed("limit") && s.limit == 0 {
		return o, fmt.Errorf("--limit 0: want at least 1")
	}
	switch s.by {
	case "publish":
	case "init":
		o.By = runlog.ByInit
	default:
		return o, fmt.Errorf("--by %q: want publish or init", s.by)
	}
	if o.Since, err = parseTime("since", s.since); err != nil {
		return o, err
	}
	o.Until, err = parseTime("until", s.until)
	return o, err
}

// parseTime reads a time. 0 means "open" to a scan, so the instant 0 itself becomes its neighbor.
func parseTime(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	ns, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t, terr := time.Parse(time.RFC3339Nano, s)
		if terr != nil {
			return 0, fmt.Errorf("--%s %q: want RFC 3339 such as 2026-11-23T20:02:48.5Z, or ns since 1970", flag, s)
		}
		if ns = t.UnixNano(); !time.Unix(0, ns).Equal(t) {
			return 0, fmt.Errorf("--%s %q: beyond the years 1678 to 2262", flag, s)
		}
	}
	if ns == 0 {
		ns = 1
		if flag == "until" {
			ns = -1
		}
	}
	return ns, nil
}

func (a *app) catCmd() *cobra.Command {
	var s selection
	notes := false
	cmd := &cobra.Command{
		Use: "cat RUN", Short: "Print a run's entries, in order or backwards",
		Long: `cat prints entries in seq order, lifecycle entries included. Each batch is verified by its digest on the way. If the log is
damaged, everything before the damage is printed, then the error; the exit code is 1.

--notes prints the notes that stand between the entries, too: snapshot anchors, state hashes, stream markers. They have no seq and no time, so of
the flags only --from and --to select among them; --limit counts entries.`,
		Example: `  runlog cat runs/demo/2026* --from 100 --to 200
  runlog cat --reverse --limit 20 runs/demo/2026*
  runlog cat runs/demo/2026* --topic venue.report --type Fill --json | jq .payload
  runlog cat runs/demo/2026* --since 2026-11-23T20:00:00Z --until 2026-11-23T20:05:00Z
  runlog cat runs/demo/2026* --notes --json | jq 'select(.note == "anchor")'`,
		Args: exactly("RUN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options(cmd)
			if err != nil {
				return err
			}
			if notes && s.reverse {
				return fmt.Errorf("--notes: not together with --reverse")
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				if notes {
					return a.printWithNotes(r, o, s.limit)
				}
				return a.print(r.Scan(o), a.json, s.limit, true)
			})
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&s.reverse, "reverse", false, "newest first")
	cmd.Flags().BoolVar(&notes, "notes", false, "print the notes between the entries, too")
	a.fullFlag(cmd)
	return cmd
}

func (a *app) exportCmd() *cobra.Command {
	var s selection
	lifecycle := false
	cmd := &cobra.Command{
		Use: "export RUN", Short: "Print a run's entries as JSON lines, for import",
		Long: `export prints one JSON object a line, as import reads them. Lifecycle entries are left out, since every run has its own, and so
are notes (runlog cat --notes shows them).
Importing the lines and exporting that run gives the same bytes again.`,
		Example: `  runlog export runs/demo/2026* > demo.jsonl
  runlog export runs/demo/2026* | zstd > demo.jsonl.zst
  runlog export runs/demo/2026* | runlog import other --instance demo -`,
		Args: exactly("RUN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options(cmd)
			if err != nil {
				return err
			}
			return a.withRun(args[0], func(r *runlog.Reader) error { return a.print(r.Scan(o), true, s.limit, lifecycle) })
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&lifecycle, "lifecycle", false, "lifecycle entries too (import refuses them)")
	return cmd
}

func (a *app) historyCmd() *cobra.Command {
	lifecycle := false
	cmd := &cobra.Command{
		Use: "history RUN KIND=VALUE", Short: "Print every entry that carries a key, an id or a correlation id",
		Long: `history prints all entries of a run that carry the key, in order; none is fine too. KIND is client_order_id, venue_order_id, a kind
that the run declares (runlog info lists them), or id or correlation_id with a UUID as VALUE.`,
		Example: `  runlog history runs/demo/2026* venue_order_id=6412777276324
  runlog history runs/demo/2026* correlation_id=0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11 --json`,
		Args: exactly("RUN", "KIND=VALUE"),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, value, ok := strings.Cut(args[1], "=")
			if !ok || kind == "" || value == "" {
				return fmt.Errorf("%q: want KIND=VALUE, such as client_order_id=C-1017", args[1])
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				err := a.print(r.History(kind, value), a.json, 0, lifecycle)
				if errors.Is(err, runlog.ErrUnknownKind) {
					return fmt.Errorf("%w; the run has %s", err, strings.Join(kindNames(r), ", "))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&lifecycle, "lifecycle", false, "lifecycle entries too")
	a.fullFlag(cmd)
	return cmd
}

func kindNames(r *runlog.Reader) []string {
	names := []string{entry.ClientOrderID, entry.VenueOrderID, entry.KindID, entry.KindCorrID}
	for _, k := range r.Manifest().Kinds {
		names = append(names, k.Name)
	}
	return names
}

// print prints entries until they end, an error comes, or nobody reads any more.
func (a *app) print(entries iter.Seq2[runlog.View, error], asJSON bool, limit uint64, lifecycle bool) error {
	var enc encoder
	var lines lineFormat
	n := uint64(0)
	for v, err := range entries {
		if err != nil {
			return err
		}
		if !lifecycle && v.IsLifecycle() {
			continue
		}
		if asJSON {
			_, _ = a.out.Write(enc.line(&v))
		} else {
			lines.print(a, &v)
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

// lineFormat keeps the columns of a stream of entries aligned: a column grows when it must, and stays so.
type lineFormat struct {
	seq, topic, typ int
}

func (l *lineFormat) print(a *app, v *runlog.View) {
	limit := 80
	if a.full {
		limit = -1
	}
	topic, typ := printable(v.Topic(), -1), printable(v.Type(), -1)
	seq := strconv.FormatUint(v.Seq(), 10)
	l.seq, l.topic, l.typ = max(l.seq, len(seq), 6), max(l.topic, len(topic)), max(l.typ, len(typ))
	keys := ""
	v.Keys(func(kind string, value []byte) bool {
		if keys += printable(kind, -1) + "=" + printable(string(value), -1) + " "; !a.full && len(keys) > 120 {
			keys += "... "
			return false
		}
		return true
	})
	if keys != "" {
		keys += " "
	}
	line := fmt.Sprintf("%*s  %s  %-*s  %-*s  %s%s",
		l.seq, seq, formatTime(v.TsPublish()), l.topic, topic, l.typ, typ, keys, payloadText(v.Payload(), limit))
	a.out.line("%s", strings.TrimRight(line, " "))
}

func (a *app) getCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get RUN SEQ", Short: "Print one entry in full",
		Example: `  runlog get runs/demo/2026* 1017
  runlog get runs/demo/2026* 1017 --json | jq -r .payload`,
		Args: exactly("RUN", "SEQ"),
		RunE: func(_ *cobra.Command, args []string) error {
			seq, err := parseSeq(args[1])
			if err != nil {
				return err
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				v, err := getEntry(r, seq)
				if err != nil {
					return err
				}
				if a.json {
					var enc encoder
					_, _ = a.out.Write(enc.line(&v))
					return nil
				}
				a.printEntry(&v)
				return nil
			})
		},
	}
	return cmd
}

func (a *app) printEntry(v *runlog.View) {
	t := table{}
	t.add("seq", strconv.FormatUint(v.Seq(), 10))
	t.add("topic", printable(v.Topic(), -1))
	t.add("type", printable(v.Type(), -1))
	t.add("ts_init", formatTime(v.TsInit()))
	t.add("ts_publish", formatTime(v.TsPublish()))
	for _, id := range [...]struct {
		name string
		id   runlog.ID
	}{{"id", v.ID()}, {"correlation_id", v.CorrelationID()}, {"causation_id", v.CausationID()}} {
		if !id.id.IsZero() {
			t.add(id.name, id.id.String())
		}
	}
	v.Keys(func(kind string, value []byte) bool {
		t.add("key", printable(kind, -1)+"="+printable(string(value), -1))
		return true
	})
	t.add("payload", payloadText(v.Payload(), -1))
	t.print(a.out)
}
