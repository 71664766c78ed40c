package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
)

// linkJSON is a line of why --json.
type linkJSON struct {
	Link  string          `json:"link"`            // entry, cause, effect; at the chain's end: root, missing, cycle
	Depth int             `json:"depth"`           // links between it and the entry that was asked for
	Dir   string          `json:"dir"`             // run's directory
	ID    string          `json:"id,omitempty"`    // missing, cycle: the causation id that leads nowhere, or back
	Entry json.RawMessage `json:"entry,omitempty"` // as cat prints it
}

// whyFlags are why's flags.
type whyFlags struct {
	parents, down bool
	limit         int
}

func (a *app) whyCmd() *cobra.Command {
	var o whyFlags
	cmd := &cobra.Command{
		Use: "why RUN SEQ", Short: "Print what caused an entry, back to the beginning",
		Long: `why follows an entry's causation id to the entry with that id, and so on, up to one that nothing in the log has caused. Causes are found by
the index. With --parents, a cause that is not in the run is looked for in the runs that it continues. A link that is missing, or leads in a
circle, is said so.

--down prints what the entry has caused, directly and indirectly, instead: the run is read from the entry on.`,
		Example: `  runlog why runs/demo/2026* 5
  runlog why runs/demo/2026* 5 --parents --json
  runlog why runs/demo/2026* 2 --down`,
		Args: exactly("RUN", "SEQ"),
		RunE: func(_ *cobra.Command, args []string) error {
			seq, err := parseSeq(args[1])
			if err != nil {
				return err
			}
			if o.limit < 1 {
				return fmt.Errorf("--limit %d: want at least 1", o.limit)
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				v, err := getEntry(r, seq)
				if err != nil {
					return err
				}
				e := v.Clone()
				w := &whyPrinter{a: a, o: o}
				w.print("entry", 0, r, &v)
				if o.down {
					return w.effects(r, &e)
				}
				return w.causes(r, &e)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.parents, "parents", false, "look for causes in parent runs too")
	f.BoolVar(&o.down, "down", false, "what the entry has caused, instead of what caused it")
	f.IntVar(&o.limit, "limit", 10_000, "stop after so many links")
	a.fullFlag(cmd)
	return cmd
}

func parseSeq(s string) (uint64, error) {
	seq, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a seq: want a number from 1 on", s)
	}
	return seq, nil
}

// getEntry reads one entry. One that is absent because the log is damaged gives the damage.
func getEntry(r *runlog.Reader, seq uint64) (runlog.View, error) {
	v, err := r.Get(seq, nil)
	if errors.Is(err, runlog.ErrNotFound) && seq > 0 && r.Damage() != nil {
		return v, r.Damage()
	}
	return v, err
}

// whyPrinter prints links.
type whyPrinter struct {
	a     *app
	o     whyFlags
	lines lineFormat
	enc   encoder
	dir   string // of the entry before, in the text form
}

// place is where an entry stands, over all runs.
type place struct {
	dir string
	seq uint64
}

// causes walks up.
func (w *whyPrinter) causes(r *runlog.Reader, e *runlog.Entry) error {
	seen := map[place]bool{{r.Dir(), e.Seq}: true}
	for depth := 1; ; depth++ {
		id := e.CausationID
		if id.IsZero() {
			w.end("root", depth-1, r, id, fmt.Sprintf("nothing: seq %d has no causation id", e.Seq))
			return nil
		}
		if depth > w.o.limit {
			return fmt.Errorf("seq %d: the chain goes on: stopped after %d links (--limit)", e.Seq, w.o.limit)
		}
		in, v, err := w.find(r, id)
		if in != nil && in != r {
			defer in.Close()
		}
		if err != nil {
			return err
		}
		if in == nil {
			where := "in this run"
			if w.o.parents {
				where += " or in those that it continues"
			} else if p := r.Manifest().Parent; p != "" {
				where += "; it continues " + p + " (--parents looks there too)"
			}
			w.end("missing", depth, r, id, fmt.Sprintf("id %s, which no entry has %s", id, where))
			return nil
		}
		if r = in; seen[place{r.Dir(), v.Seq()}] {
			w.end("cycle", depth, r, id, fmt.Sprintf("seq %d again: the chain goes in a circle", v.Seq()))
			return nil
		}
		seen[place{r.Dir(), v.Seq()}] = true
		w.print("cause", depth, r, &v)
		c := v.Clone()
		e = &c
	}
}

// find returns the entry with this id and the run that it is in; that is nil when there is none.
func (w *whyPrinter) find(r *runlog.Reader, id runlog.ID) (*runlog.Reader, runlog.View, error) {
	seen := map[string]bool{}
	for in := r; ; {
		seq, ok, err := in.Lookup(entry.KindID, id.String())
		var v runlog.View
		if err == nil && ok {
			v, err = in.Get(seq, nil)
		}
		if err != nil || ok {
			return in, v, err
		}
		parent := in.Manifest().Parent
		dir := filepath.Join(filepath.Dir(filepath.Clean(r.Dir())), parent)
		if in != r {
			_ = in.Close()
		}
		if !w.o.parents || parent == "" || seen[parent] {
			return nil, v, nil
		}
		seen[parent] = true
		if in, err = runlog.OpenReader(dir, runlog.ReaderOptions{}); err != nil {
			return nil, v, fmt.Errorf("parent run %s: %w", parent, err)
		}
	}
}

// effects reads on: whatever an entry causes comes after it.
func (w *whyPrinter) effects(r *runlog.Reader, e *runlog.Entry) error {
	if e.ID.IsZero() {
		w.end("root", 0, r, e.ID, fmt.Sprintf("seq %d has no id, so no entry can name it as its cause", e.Seq))
		return nil
	}
	depth := map[runlog.ID]int{e.ID: 0}
	n := 0
	for v, err := range r.Scan(runlog.ScanOptions{From: e.Seq + 1}) {
		if err != nil {
			return err
		}
		if v.Seq()%1024 == 0 && w.a.ctx.Err() != nil {
			return w.a.ctx.Err()
		}
		at, ok := depth[v.CausationID()]
		if !ok || v.CausationID().IsZero() {
			continue
		}
		if n++; n > w.o.limit {
			return fmt.Errorf("there is more: stopped after %d entries (--limit)", w.o.limit)
		}
		if _, known := depth[v.ID()]; !known && !v.ID().IsZero() {
			depth[v.ID()] = at + 1
		}
		w.print("effect", at+1, r, &v)
		if w.a.out.failed() {
			return nil
		}
	}
	if n == 0 {
		w.end("root", 0, r, e.ID, fmt.Sprintf("nothing in this run names seq %d as its cause", e.Seq))
	}
	return nil
}

// print prints an entry of the chain.
func (w *whyPrinter) print(link string, depth int, r *runlog.Reader, v *runlog.View) {
	if w.a.json {
		line := bytes.Clone(bytes.TrimRight(w.enc.line(v), "\n"))
		_ = w.a.printJSON(linkJSON{Link: link, Depth: depth, Dir: r.Dir(), Entry: line})
		return
	}
	if w.dir != "" && w.dir != r.Dir() {
		w.a.out.line("%9s in the parent run %s:", "", r.Dir())
	}
	w.dir = r.Dir()
	fmt.Fprint(w.a.out, w.arrow(link, depth))
	w.lines.print(w.a, v)
}

// arrow is what stands in front of a link.
func (w *whyPrinter) arrow(link string, depth int) string {
	switch link {
	case "entry":
		return "          "
	case "effect":
		return fmt.Sprintf("  -> %3d  ", depth)
	}
	return fmt.Sprintf("  <- %3d  ", depth)
}

// end prints how a chain ends.
func (w *whyPrinter) end(link string, depth int, r *runlog.Reader, id runlog.ID, text string) {
	if w.a.json {
		l := linkJSON{Link: link, Depth: depth, Dir: r.Dir()}
		if !id.IsZero() {
			l.ID = id.String()
		}
		_ = w.a.printJSON(l)
		return
	}
	arrow := "<-"
	if w.o.down {
		arrow = "->"
	}
	w.a.out.line("  %s      %s", arrow, text)
}
