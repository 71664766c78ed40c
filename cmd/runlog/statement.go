package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/proof"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// sealedManifest reads the manifest of a run that nothing will be written to any more.
func sealedManifest(dir string) (m runlog.Manifest, err error) {
	kind, err := classify(dir)
	if err != nil {
		return m, err
	}
	if kind != isRun {
		return m, notRun(dir, kind)
	}
	if _, quarantined, _ := manifest.ReadQuarantine(vfs.OS, dir); quarantined {
		return m, badData{fmt.Errorf("%s: the run is quarantined: nothing can be stated about it", dir)}
	}
	m, standIn, err := manifest.Read(vfs.OS, dir)
	switch {
	case err != nil:
		return m, err
	case standIn != nil:
		return m, badData{fmt.Errorf("%s: %w; the engine's next start puts it back", dir, standIn)}
	case live(dir, m):
		return m, fmt.Errorf("%s: the run is being written: statements and proofs are for sealed runs", dir)
	case !m.Status.Sealed():
		return m, fmt.Errorf("%s: the run is not sealed: its process died; "+
			"runlog recover, or the engine's next start, seals it", dir)
	case m.FloorSegment > 0:
		return m, fmt.Errorf("%s: entries before seq %d are no longer there, and the tree needs all", dir, m.Floor)
	}
	return m, nil
}

// survey reads a sealed run once: it verifies every byte, and builds the tree over all entries and the paths of those
// that seqs names.
func (a *app) survey(dir string, m *runlog.Manifest, seqs []uint64) (proof.Statement, *proof.Tree, error) {
	st := proof.Statement{Run: proof.Run{Instance: m.Instance, ID: m.Run}, Entries: m.LastSeq, Digest: m.Digest}
	tree, err := proof.NewTree(m.LastSeq, seqs)
	if err != nil {
		return st, nil, fmt.Errorf("%s: %w", dir, err)
	}
	sum, err := manifest.UnsignedDigest(*m)
	if err != nil {
		return st, nil, err
	}
	st.Manifest = fmt.Sprintf("%x", sum)
	bad, next := 0, uint64(1)
	var e entry.Entry
	var leaf []byte
	bar := a.newProgress()
	rep, err := verify.Run(a.ctx, vfs.OS, dir, verify.Options{
		OnFinding: func(f verify.Finding) {
			switch f.Kind {
			case verify.KindIndex, verify.KindFilter, verify.KindExtra: // nothing is derived from these here
			default:
				bad++
			}
			a.warn(errors.New(f.String()))
		},
		OnProgress: func(done, total int64) {
			bar.show(func() string { return fmt.Sprintf("%s of %s read", size(done), size(total)) })
		},
		OnEntry: func(v *runlog.View) error {
			if v.Seq() != next {
				return badData{fmt.Errorf("%s: the run is not whole: seq %d is followed by %d", dir, next-1, v.Seq())}
			}
			next++
			look(&e, v)
			leaf = proof.AppendLeaf(leaf[:0], st.Run, &e)
			return tree.Add(leaf)
		},
	})
	bar.end()
	switch {
	case err != nil:
		return st, nil, err
	case bad > 0 || rep.Digest != m.Digest:
		return st, nil, badData{fmt.Errorf("%s: the run is not whole: runlog verify says more", dir)}
	}
	if st.Root, err = tree.Root(); err != nil {
		return st, nil, badData{fmt.Errorf("%s: %w", dir, err)}
	}
	return st, tree, nil
}

// look makes e show what v shows, for as long as v is valid.
func look(e *entry.Entry, v *runlog.View) {
	*e = entry.Entry{
		Seq: v.Seq(), TsInit: v.TsInit(), TsPublish: v.TsPublish(), Topic: v.Topic(), Type: v.Type(), Payload: v.Payload(),
		ID: v.ID(), CorrelationID: v.CorrelationID(), CausationID: v.CausationID(), Keys: e.Keys[:0],
	}
	v.Keys(func(kind string, value []byte) bool {
		e.Keys = append(e.Keys, runlog.Key{Kind: kind, Value: string(value)})
		return true
	})
}

func (a *app) statementCmd() *cobra.Command {
	keyFile := ""
	cmd := &cobra.Command{
		Use: "statement RUN", Short: "Print what a sealed run holds, in a few lines to keep elsewhere",
		Long: `statement verifies a sealed run and prints who it is, how many entries it has, the root of the tree over them, its digest and its
manifest's, signed with the key of --key. The same run always gives the same statement. It is what check-proof trusts, and it is worth
something only where whoever writes the run cannot replace it: hand it out when the run has ended. Takes no lock and writes nothing.`,
		Example: `  runlog statement runs/demo/2026* --key desk.key > demo.statement
  runlog check-statement runs/demo/2026* --statement demo.statement --pub desk.key.pub`,
		Args: exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			signer, err := readSigner(keyFile)
			if err != nil {
				return err
			}
			m, err := sealedManifest(args[0])
			if err != nil {
				return err
			}
			st, _, err := a.survey(args[0], &m, nil)
			if err != nil {
				return err
			}
			text := []byte(st.Text())
			if signer != nil {
				if text, err = st.Sign(signer); err != nil {
					return err
				}
			}
			if a.json {
				return a.printJSON(newStatementJSON(&st, string(text)))
			}
			_, err = a.out.Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the private key to sign with, see runlog keygen")
	return cmd
}

// statementJSON is statement --json.
type statementJSON struct {
	Record    string     `json:"record"` // "statement"
	Instance  string     `json:"instance"`
	Run       string     `json:"run"`
	Entries   uint64     `json:"entries"`
	Root      proof.Hash `json:"root"`
	Digest    string     `json:"run_sha256"`
	Manifest  string     `json:"manifest_sha256"`
	Statement string     `json:"statement"` // as without --json
}

func newStatementJSON(st *proof.Statement, text string) statementJSON {
	return statementJSON{
		Record: "statement", Instance: st.Instance, Run: st.ID, Entries: st.Entries,
		Root: st.Root, Digest: st.Digest, Manifest: st.Manifest, Statement: text,
	}
}

func (a *app) checkStatementCmd() *cobra.Command {
	file, pub := "", ""
	cmd := &cobra.Command{
		Use: "check-statement RUN", Short: "Check that a run is still what a statement says",
		Long: `check-statement verifies a sealed run, and compares it with a statement: the file of --statement, or the signed one that runlog sign has
stored in the run's manifest, which needs --pub. With --pub the statement must be signed by that key.

Exit codes: 0 the run is what the statement says; 1 it is not, or the signature is wrong; 2 usage, or something could not be read.`,
		Example: `  runlog check-statement runs/demo/2026* --statement demo.statement --pub desk.key.pub
  runlog check-statement runs/demo/2026* --pub desk.key.pub`,
		Args: exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := sealedManifest(args[0])
			if err != nil {
				return err
			}
			var said proof.Signed
			switch {
			case file != "":
				said, err = readStatement(file, pub)
			case pub == "":
				return fmt.Errorf("want --statement, --pub or both")
			case m.Signature == "":
				return fmt.Errorf("%s: the manifest is not signed: see runlog sign, or give a --statement", args[0])
			default:
				said, err = openStatement(args[0]+": the manifest's signature", []byte(m.Signature), pub)
			}
			if err != nil {
				return err
			}
			st, _, err := a.survey(args[0], &m, nil)
			if err != nil {
				return err
			}
			if why := difference(&st, &said.Statement); why != "" {
				return badData{fmt.Errorf("%s: not what was stated: %s", args[0], why)}
			}
			a.holds("statement", &said, 0)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "statement", "", "file with the statement; without it, the one in the run's manifest")
	cmd.Flags().StringVar(&pub, "pub", "", "file with the public key that must have signed")
	return cmd
}

// difference says in what a run is not what was stated.
func difference(is, said *proof.Statement) string {
	switch {
	case *is == *said:
		return ""
	case is.Run != said.Run:
		return fmt.Sprintf("it is run %s of %s, the statement is for %s of %s", is.ID, is.Instance, said.ID, said.Instance)
	case is.Entries != said.Entries:
		return fmt.Sprintf("it has %d entries, %d were stated", is.Entries, said.Entries)
	case is.Root != said.Root:
		return fmt.Sprintf("the tree's root is %s, %s was stated", is.Root, said.Root)
	case is.Digest != said.Digest:
		return fmt.Sprintf("its digest is %s, %s was stated", is.Digest, said.Digest)
	}
	return fmt.Sprintf("the manifest's digest is %s, %s was stated", is.Manifest, said.Manifest)
}

// holdsJSON is what check-statement and check-proof end with in JSON.
type holdsJSON struct {
	Record     string     `json:"record"` // "statement" or "proof"
	OK         bool       `json:"ok"`     // true; what does not hold is an error
	Instance   string     `json:"instance"`
	Run        string     `json:"run"`
	Entries    uint64     `json:"entries"` // of the run
	Proven     int        `json:"proven,omitempty"`
	Root       proof.Hash `json:"root"`
	SignedBy   []string   `json:"signed_by"`             // whose signatures were checked
	NotChecked []string   `json:"not_checked,omitempty"` // who else is said to have signed
}

// holds says that a statement, or the proof of some entries under it, is right, and who vouches for that.
func (a *app) holds(record string, s *proof.Signed, proven int) {
	if a.json {
		_ = a.printJSON(holdsJSON{
			Record: record, OK: true, Instance: s.Instance, Run: s.ID, Entries: s.Entries, Proven: proven, Root: s.Root,
			SignedBy: append([]string{}, s.By...), NotChecked: s.Unknown,
		})
		return
	}
	what := fmt.Sprintf("run %s of %s is what was stated: %s", s.ID, s.Instance, number(s.Entries, "entry", "entries"))
	if record == "proof" {
		what = fmt.Sprintf("proven: %s of the %s of run %s of %s", count(proven), number(s.Entries, "entry", "entries"),
			s.ID, s.Instance)
	}
	by := "no signature was checked"
	if len(s.By) > 0 {
		by = "signed by " + printable(s.By[0], -1)
	}
	a.out.line("ok: %s; %s", what, by)
}

// readStatement reads a statement file; the key in the file pub, if there is one, must have signed it.
func readStatement(file, pub string) (proof.Signed, error) {
	b, err := readSmall(file, proof.MaxStatement)
	if err != nil {
		return proof.Signed{}, err
	}
	return openStatement(file, b, pub)
}

func openStatement(name string, b []byte, pub string) (proof.Signed, error) {
	var keys []note.Verifier
	if pub != "" {
		key, err := readVerifier(pub)
		if err != nil {
			return proof.Signed{}, err
		}
		keys = append(keys, key)
	}
	s, err := proof.Read(b, keys...)
	if err != nil {
		return s, proofError(fmt.Errorf("%s: %w", name, err))
	}
	return s, nil
}

// proofError marks what is wrong with the data; a newer version is not.
func proofError(err error) error {
	if errors.Is(err, proof.ErrInvalid) {
		return badData{err}
	}
	return err
}

// readSmall reads a file that cannot be large.
func readSmall(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are possible", name, info.Size(), limit)
	}
	return os.ReadFile(name)
}
