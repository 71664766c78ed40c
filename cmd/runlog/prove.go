package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/proof"
)

// maxProven bounds the entries of one proof file: each needs memory for its path, some hundred bytes.
const maxProven = 100_000

func (a *app) proveCmd() *cobra.Command {
	order := ""
	cmd := &cobra.Command{
		Use: "prove RUN SEQ...", Short: "Print a proof that entries are in a run, for somebody who does not have it",
		Long: `prove verifies a sealed run and prints the named entries in full, each with the hashes that lead from it to the root of the tree over all
entries. Whoever trusts the run's statement checks that with check-proof, without the log. --order takes every entry that carries a key, as
history does. The run is read once.

A proof says that these entries are in the run, at these seqs. It does not say that there are no others: whoever needs to know that gets the
run. What else a proof does not prevent: docs/format/proof.md.`,
		Example: `  runlog prove runs/demo/2026* 1017 > 1017.proof
  runlog prove runs/demo/2026* --order client_order_id=C-1017 > C-1017.proof
  runlog check-proof C-1017.proof --statement demo.statement --pub desk.key.pub`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || (len(args) == 1) == (order == "") {
				return fmt.Errorf("prove: want RUN and either SEQ... or --order; see runlog prove --help")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := sealedManifest(args[0])
			if err != nil {
				return err
			}
			return a.withRun(args[0], func(r *runlog.Reader) error {
				seqs, err := proven(r, args[1:], order)
				if err != nil {
					return err
				}
				return a.prove(r, &m, seqs)
			})
		},
	}
	cmd.Flags().StringVar(&order, "order", "", "every entry that carries this key: KIND=VALUE, such as client_order_id=C-1017")
	return cmd
}

// proven lists the seqs that are to be proven, in order.
func proven(r *runlog.Reader, args []string, order string) (seqs []uint64, err error) {
	for _, s := range args {
		seq, err := parseSeq(s)
		if err != nil {
			return nil, err
		}
		if _, err := getEntry(r, seq); err != nil {
			return nil, err
		}
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	if order == "" {
		return seqs, tooMany(len(seqs))
	}
	kind, value, ok := strings.Cut(order, "=")
	if !ok || kind == "" || value == "" {
		return nil, fmt.Errorf("--order %q: want KIND=VALUE, such as client_order_id=C-1017", order)
	}
	for v, err := range r.History(kind, value) {
		if errors.Is(err, runlog.ErrUnknownKind) {
			return nil, fmt.Errorf("%w; the run has %s", err, strings.Join(kindNames(r), ", "))
		}
		if err == nil {
			err = tooMany(len(seqs) + 1)
		}
		if err != nil {
			return nil, err
		}
		seqs = append(seqs, v.Seq())
	}
	if len(seqs) == 0 {
		return nil, fmt.Errorf("%s: no entry carries %s: nothing to prove", r.Dir(), order)
	}
	return seqs, nil
}

func tooMany(n int) error {
	if n > maxProven {
		return fmt.Errorf("more than %s entries: prove them in several files, or hand over the run", count(maxProven))
	}
	return nil
}

func (a *app) prove(r *runlog.Reader, m *runlog.Manifest, seqs []uint64) error {
	st, tree, err := a.survey(r.Dir(), m, seqs)
	if err != nil {
		return err
	}
	if m.Signature != "" { // the proof would be checked against what was signed
		said, err := proof.Read([]byte(m.Signature))
		if err != nil {
			return proofError(fmt.Errorf("%s: the manifest's signature: %w", r.Dir(), err))
		}
		if why := difference(&st, &said.Statement); why != "" {
			return badData{fmt.Errorf("%s: the run is not what was signed: %s", r.Dir(), why)}
		}
	}
	w, err := proof.NewWriter(a.out, st, len(seqs))
	if err != nil {
		return err
	}
	var e entry.Entry
	var buf runlog.Buffer
	for _, seq := range seqs {
		v, err := r.Get(seq, &buf)
		if err != nil {
			return err
		}
		path, err := tree.Path(seq)
		if err != nil {
			return err
		}
		look(&e, &v)
		if err := w.Add(&e, path); err != nil {
			return proofError(err)
		}
	}
	return w.Close()
}

func (a *app) checkProofCmd() *cobra.Command {
	file, pub := "", ""
	cmd := &cobra.Command{
		Use: "check-proof PROOF", Short: "Check a proof against a statement, without the log",
		Long: `check-proof prints the entries of a proof file that are proven to be in the run that a statement speaks of. It needs the proof and the
statement, and nothing of the log. With --pub the statement must be signed by that key; without it, the statement file itself is what is
trusted. An entry is printed once it is proven; if a later one is not, the error says so and the exit code is 1.

Exit codes: 0 everything holds; 1 it does not, or the signature is wrong; 2 usage, or something could not be read.`,
		Example: `  runlog check-proof 1017.proof --statement demo.statement --pub desk.key.pub
  runlog check-proof 1017.proof --statement demo.statement --json | jq -r 'select(.seq) | .payload'`,
		Args: exactly("PROOF"),
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				return fmt.Errorf("want --statement, the file with what is trusted")
			}
			st, err := readStatement(file, pub)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			n := 0
			proven := func(yield func(runlog.View, error) bool) {
				err := proof.Check(f, st.Statement, func(e *entry.Entry) error {
					v, err := viewOf(e)
					if n++; err == nil && !yield(v, nil) {
						err = errStopped
					}
					return err
				})
				if err != nil && !errors.Is(err, errStopped) {
					yield(runlog.View{}, proofError(fmt.Errorf("%s: %w", args[0], err)))
				}
			}
			if err := a.print(proven, a.json, 0, true); err != nil {
				return err
			}
			a.holds("proof", &st, n)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "statement", "", "file with the statement that is trusted")
	cmd.Flags().StringVar(&pub, "pub", "", "file with the public key that must have signed it")
	a.fullFlag(cmd)
	return cmd
}

// errStopped: nobody reads what is printed.
var errStopped = errors.New("stopped")

// viewOf gives a proven entry the form that those of a log have, so that it is printed as they are.
func viewOf(e *entry.Entry) (v runlog.View, err error) {
	kinds := &entry.Kinds{}
	for _, k := range e.Keys {
		if kinds, _, err = kinds.With(k.Kind); err != nil {
			return v, badData{err}
		}
	}
	d := e.Draft()
	if err := d.Check(kinds, entry.MaxPayload); err != nil { // whoever made the tree may have had no run
		return v, badData{fmt.Errorf("seq %d: %w", e.Seq, err)}
	}
	var b entry.Batch
	b.Add(&d, kinds, e.TsPublish)
	item := b.At(0)
	dict := entry.NewDict(e.TsPublish)
	dict.SetKinds(kinds)
	body := entry.AppendHead(nil, e.TsPublish, 0, entry.Route{Topic: e.Topic, Type: e.Type}, e.TsInit, e.TsPublish)
	return entry.ParseView(dict, e.Seq, item.Flags, append(body, item.Tail...))
}
