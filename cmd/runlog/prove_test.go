package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/proof"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// keygen makes a key pair and returns its file.
func keygen(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	do(t, "keygen", name, file).want(t, 0)
	return file
}

// saved writes what a command has printed into a file.
func saved(t testing.TB, r result) string {
	t.Helper()
	r.want(t, 0)
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(r.out), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAProofIsCheckedWithoutTheLog(t *testing.T) {
	base, dir := imported(t, threeLines+many(300))
	key := keygen(t, "desk")
	st := saved(t, do(t, "statement", dir, "--key", key))
	for _, args := range [][]string{{"1"}, {"304", "2", "3", "2"}, {"--order", "client_order_id=C-1"}, {"4"}} {
		pf := saved(t, do(t, append([]string{"prove", dir}, args...)...))
		want := ""
		if args[0] == "--order" {
			want = do(t, "history", dir, args[1], "--json").want(t, 0).out
		} else {
			slices.Sort(args)
			for _, seq := range slices.Compact(args) {
				want += do(t, "get", dir, seq, "--json").want(t, 0).out
			}
		}
		away := dir + "-away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		got := do(t, "check-proof", pf, "--statement", st, "--pub", key+".pub", "--json").want(t, 0).lines()
		if len(got) < 2 || !sameLines(got[:len(got)-1], strings.Split(strings.TrimSpace(want), "\n")) {
			t.Errorf("%v: proven\n%s\nwant\n%s", args, strings.Join(got, "\n"), want)
		}
		if last := got[len(got)-1]; !strings.Contains(last, `"ok":true`) || !strings.Contains(last, `"signed_by":["desk"]`) {
			t.Error(last)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
	}
	do(t, "verify", base).want(t, 0)
}

// sameLines compares without order: seqs sort as numbers, arguments as text.
func sameLines(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestTheSameRunGivesTheSameStatement(t *testing.T) {
	_, dir := imported(t, many(50))
	key := keygen(t, "desk")
	first := do(t, "statement", dir, "--key", key).want(t, 0).out
	before := tree(t, dir)
	if again := do(t, "statement", dir, "--key", key).want(t, 0).out; again != first {
		t.Errorf("%s\nthen\n%s", first, again)
	}
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Error("statement has changed the run")
	}
	do(t, "sign", dir, "--key", key).want(t, 0)
	if signed := do(t, "statement", dir, "--key", key).want(t, 0).out; signed != first {
		t.Errorf("%s\nonce the manifest is signed\n%s", first, signed)
	}
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil || m.Signature != first {
		t.Errorf("in the manifest: %q, %v", m.Signature, err)
	}
}

func TestAnotherStatementDoesNotProve(t *testing.T) {
	_, dir := imported(t, many(20))
	_, other := imported(t, many(20))
	key, stranger := keygen(t, "desk"), keygen(t, "desk")
	pf := saved(t, do(t, "prove", dir, "5"))
	st := saved(t, do(t, "statement", dir, "--key", key))
	plain := saved(t, do(t, "statement", dir))
	do(t, "check-proof", pf, "--statement", plain).want(t, 0)
	do(t, "check-proof", pf, "--statement", st).want(t, 0)
	do(t, "check-proof", pf, "--statement", saved(t, do(t, "statement", other))).want(t, 1, "it is for run")
	do(t, "check-proof", pf, "--statement", st, "--pub", stranger+".pub").want(t, 1)
	do(t, "check-proof", pf, "--statement", plain, "--pub", key+".pub").want(t, 1, "not signed")
	do(t, "check-proof", saved(t, do(t, "prove", other, "5")), "--statement", st, "--pub", key+".pub").want(t, 1)
	do(t, "check-statement", other, "--statement", st).want(t, 1, "it is run")
	do(t, "check-statement", dir, "--statement", st, "--pub", key+".pub").want(t, 0)
	do(t, "check-statement", dir, "--statement", st, "--pub", stranger+".pub").want(t, 1)
}

// Every bit of a proof file counts, on the way through the tool too.
func TestAChangedProofFileIsExitCode1(t *testing.T) {
	_, dir := imported(t, many(5))
	st := saved(t, do(t, "statement", dir))
	b := []byte(do(t, "prove", dir, "3").want(t, 0).out)
	file := filepath.Join(t.TempDir(), "proof")
	for i := range b {
		b[i] ^= 1 << (i % 8)
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if r := do(t, "check-proof", file, "--statement", st); r.code == 0 || strings.Contains(r.out, "ok:") || r.stderr == "" {
			t.Errorf("byte %d: %+v", i, r)
		} else if r.code != 1 && !strings.Contains(r.stderr, "version") {
			t.Errorf("byte %d: %+v", i, r)
		}
		b[i] ^= 1 << (i % 8)
	}
}

// What only the manifest knows is stated too.
func TestAChangedManifestIsNoticed(t *testing.T) {
	_, dir := imported(t, many(20))
	key := keygen(t, "desk")
	st := saved(t, do(t, "statement", dir, "--key", key))
	do(t, "sign", dir, "--key", key).want(t, 0)
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*manifest.Manifest){
		func(m *manifest.Manifest) { m.Skipped = []manifest.Skipped{{Run: "x", Reason: "y"}} },
		func(m *manifest.Manifest) { m.Halt = &manifest.Halt{Reason: manifest.ReasonStall, Message: "never"} },
	} {
		c := m
		change(&c)
		if err := manifest.Write(vfs.OS, dir, c); err != nil {
			t.Fatal(err)
		}
		do(t, "check-statement", dir, "--statement", st).want(t, 1)
		do(t, "check-statement", dir, "--pub", key+".pub").want(t, 1)
		do(t, "prove", dir, "3").want(t, 1)
	}
	if err := manifest.Write(vfs.OS, dir, m); err != nil {
		t.Fatal(err)
	}
	do(t, "check-statement", dir, "--pub", key+".pub").want(t, 0)
	do(t, "prove", dir, "3").want(t, 0)
}

func TestADamagedRunIsNotStated(t *testing.T) {
	_, dir := imported(t, many(20))
	flip(t, filepath.Join(dir, segment.FileName(1)), 5000)
	key := keygen(t, "desk")
	for _, args := range [][]string{{"statement", dir}, {"prove", dir, "2"}, {"sign", dir, "--key", key}} {
		if r := do(t, args...).want(t, 1); r.out != "" {
			t.Errorf("%v: %s", args, r.out)
		}
	}
	if m, _, err := manifest.Read(vfs.OS, dir); err != nil || m.Signature != "" {
		t.Errorf("signed: %q, %v", m.Signature, err)
	}
}

// The digest holds, but the manifest says something that the footers do not.
func TestAManifestThatDoesNotFitIsNotStated(t *testing.T) {
	_, dir := imported(t, many(20))
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	m.DroppedBytes = 5
	if err := manifest.Write(vfs.OS, dir, m); err != nil {
		t.Fatal(err)
	}
	do(t, "statement", dir).want(t, 1, "not whole")
}

// What is derived from the entries is not what a statement speaks of: it is a warning.
func TestALostIndexDoesNotStopAProof(t *testing.T) {
	_, dir := imported(t, many(20))
	if err := os.Remove(filepath.Join(dir, "00000001.idx")); err != nil {
		t.Fatal(err)
	}
	st := saved(t, do(t, "statement", dir).want(t, 0, "warning"))
	do(t, "check-proof", saved(t, do(t, "prove", dir, "3")), "--statement", st).want(t, 0)
}

func TestARunThatIsNotSealedIsRefused(t *testing.T) {
	_, dir := crashed(t, 20)
	key := keygen(t, "desk")
	for _, args := range [][]string{{"statement", dir}, {"prove", dir, "2"}, {"sign", dir, "--key", key}, {"check-statement", dir, "--pub", key + ".pub"}} {
		do(t, args...).want(t, 2, "not sealed")
	}
	base := t.TempDir()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	live, _ := filepath.Glob(filepath.Join(base, "demo", "2*"))
	for _, args := range [][]string{{"statement", live[0]}, {"prove", live[0], "1"}, {"sign", live[0], "--key", key}} {
		do(t, args...).want(t, 2, "being written")
	}
}

func TestAQuarantinedRunIsRefused(t *testing.T) {
	_, dir := crashed(t, 20)
	flip(t, filepath.Join(dir, segment.FileName(1)), 5000)
	do(t, "recover", dir).want(t, 1)
	do(t, "statement", dir).want(t, 1, "quarantined")
	do(t, "prove", dir, "1").want(t, 1, "quarantined")
}

func TestADifferenceIsNamed(t *testing.T) {
	is := proof.Statement{Run: proof.Run{Instance: "a", ID: "b"}, Entries: 3, Digest: "d", Manifest: "m"}
	for _, said := range []proof.Statement{
		{Run: proof.Run{Instance: "x", ID: "b"}, Entries: 3, Digest: "d", Manifest: "m"},
		{Run: proof.Run{Instance: "a", ID: "x"}, Entries: 3, Digest: "d", Manifest: "m"},
		{Run: is.Run, Entries: 4, Digest: "d", Manifest: "m"},
		{Run: is.Run, Entries: 3, Root: proof.Hash{1}, Digest: "d", Manifest: "m"},
		{Run: is.Run, Entries: 3, Digest: "x", Manifest: "m"},
		{Run: is.Run, Entries: 3, Digest: "d", Manifest: "x"},
	} {
		if difference(&is, &said) == "" || difference(&is, &is) != "" {
			t.Errorf("%+v", said)
		}
	}
}

// A statement names a run as its manifest does, whatever the instance is called.
func TestEveryRunCanBeStated(t *testing.T) {
	for _, name := range []string{"a", "A-z.0_9", "-", "_x", strings.Repeat("n", manifest.MaxInstance)} {
		if !manifest.ValidInstance(name) {
			t.Fatal(name)
		}
		base := t.TempDir()
		r := runlogWith(t, many(1), "import", base, "--instance="+name, "-").want(t, 0)
		st := saved(t, do(t, "statement", r.lines()[0]))
		do(t, "check-statement", r.lines()[0], "--statement", st).want(t, 0)
	}
}

// jsonFields are the names in a JSON object, in order.
func jsonFields(t testing.TB, line string) (names []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	for depth, name := 0, true; ; {
		tok, err := d.Token()
		if err != nil {
			return names
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
			continue
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 1 {
			if name {
				names = append(names, tok.(string))
			}
			name = !name
		}
	}
}

func TestProofVerbsPrintTheFieldsOfThePage(t *testing.T) {
	_, dir := imported(t, many(3))
	key := filepath.Join(t.TempDir(), "key")
	fields := func(want string, args ...string) {
		t.Helper()
		l := do(t, append(args, "--json")...).want(t, 0).lines()
		if got := strings.Join(jsonFields(t, l[len(l)-1]), " "); got != want {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}
	fields("name file public", "keygen", "desk", key)
	const statement = "record instance run entries root run_sha256 manifest_sha256 statement"
	fields(statement, "statement", dir)
	st, pf := saved(t, do(t, "statement", dir, "--key", key)), saved(t, do(t, "prove", dir, "2"))
	fields("record ok instance run entries root signed_by", "check-statement", dir, "--statement", st, "--pub", key+".pub")
	fields("record ok instance run entries proven root signed_by not_checked", "check-proof", pf, "--statement", st)
	fields(statement, "sign", dir, "--key", key)
}

func TestSignTakesTheInstancesLock(t *testing.T) {
	base, dir := imported(t, many(20))
	key := keygen(t, "desk")
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	do(t, "sign", dir, "--key", key).want(t, 2, "locked by pid")
	do(t, "statement", dir, "--key", key).want(t, 0) // beside the engine
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(t, "sign", dir, "--key", key).want(t, 0)
	do(t, "sign", dir, "--key", key).want(t, 2, "--replace")
	other := keygen(t, "other")
	do(t, "sign", dir, "--key", other, "--replace").want(t, 0)
	do(t, "check-statement", dir, "--pub", key+".pub").want(t, 1)
	do(t, "check-statement", dir, "--pub", other+".pub").want(t, 0)
	do(t, "verify", base).want(t, 0)
}

// The signature is in both copies of the manifest, and recovery puts it back from either.
func TestTheSignatureSurvivesALostManifest(t *testing.T) {
	_, dir := imported(t, many(20))
	key := keygen(t, "desk")
	do(t, "sign", dir, "--key", key).want(t, 0)
	if err := os.Remove(filepath.Join(dir, manifest.FileName)); err != nil {
		t.Fatal(err)
	}
	do(t, "check-statement", dir, "--pub", key+".pub").want(t, 1, "stands in")
	if _, err := wal.Recover(vfs.OS, dir, time.Now().UnixNano()); err != nil { // as the engine's next start does
		t.Fatal(err)
	}
	do(t, "check-statement", dir, "--pub", key+".pub").want(t, 0)
}

func TestARecoveredRunCanBeProven(t *testing.T) {
	base, dir := crashed(t, 900) // several segments
	tear(t, dir)
	do(t, "recover", base).want(t, 0)
	st := saved(t, do(t, "statement", dir))
	r := do(t, "check-proof", saved(t, do(t, "prove", dir, "1", "450", "901")), "--statement", st).want(t, 0)
	if !strings.Contains(r.out, "3 of the 901 entries") {
		t.Error(r.out)
	}
}

func TestKeygenNeverOverwrites(t *testing.T) {
	key := keygen(t, "desk")
	was, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	do(t, "keygen", "desk", key).want(t, 2)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	do(t, "keygen", "desk", key).want(t, 2) // its public half is there
	if _, err := os.Stat(key); err == nil {
		t.Error("half a pair is left")
	}
	if err := os.Remove(key + ".pub"); err != nil {
		t.Fatal(err)
	}
	do(t, "keygen", "desk", key).want(t, 0)
	if again, _ := os.ReadFile(key); string(again) == string(was) {
		t.Error("the same key twice")
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAWrongKeyFileIsRefusedWithoutShowingIt(t *testing.T) {
	_, dir := imported(t, many(3))
	key := keygen(t, "desk")
	b, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(b))
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte(secret[:len(secret)-1]+"!"), 0o600); err != nil {
		t.Fatal(err)
	}
	st := saved(t, do(t, "statement", dir, "--key", key))
	pf := saved(t, do(t, "prove", dir, "1"))
	for _, args := range [][]string{
		{"statement", dir, "--key", broken}, {"statement", dir, "--key", key + ".pub"}, {"sign", dir, "--key", broken},
		{"check-proof", pf, "--statement", st, "--pub", key},
	} {
		if r := do(t, args...).want(t, 2, "not a p"); strings.Contains(r.stderr, secret[len(secret)-20:len(secret)-1]) {
			t.Errorf("%v shows the key: %s", args, r.stderr)
		}
	}
}

func TestProofVerbsRefuseWhatMakesNoSense(t *testing.T) {
	base, dir := imported(t, many(3))
	key := keygen(t, "desk")
	st := saved(t, do(t, "statement", dir))
	for _, args := range [][]string{
		{"prove", dir}, {"prove", dir, "0"}, {"prove", dir, "x"}, {"prove", dir, "99"}, {"prove", dir, "1", "--order", "client_order_id=C-1"},
		{"prove", dir, "--order", "nonsense=1"}, {"prove", dir, "--order", "client_order_id"}, {"prove", dir, "--order", "client_order_id=none"},
		{"prove", base, "1"}, {"statement", base}, {"statement", dir, "--key", "missing"}, {"sign", dir}, {"check-statement", dir},
		{"check-statement", dir, "--pub", key + ".pub"}, {"check-proof", "missing", "--statement", st}, {"check-proof", st},
		{"check-proof", st, "--statement", "missing"}, {"keygen", "a b", key + "2"}, {"keygen", "a+b", key + "2"}, {"keygen", "", key + "2"},
	} {
		do(t, args...).want(t, 2)
	}
	do(t, "check-proof", st, "--statement", st).want(t, 1, "not a proof")
	do(t, "check-proof", st, "--statement", key).want(t, 1, "not a statement")
}

var (
	hashes = regexp.MustCompile(`[A-Za-z0-9+/]{43}=|[0-9a-f]{64}|[A-Za-z0-9+/]{91}=|\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}`)
	runIDs = regexp.MustCompile(`[0-9]{8}T[0-9]{6}\.[0-9]{9}Z-[0-9a-f]{8}`)
)

// same for all runs and all keys.
func anonymous(s string) string {
	return runIDs.ReplaceAllString(hashes.ReplaceAllString(s, "#"), "RUN")
}

// What the page shows of statements and proofs is what the tool prints, but for hashes, keys and run ids.
func TestThePageShowsStatementsAndProofs(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	page := anonymous(string(b))
	t.Chdir(t.TempDir())
	runlogWith(t, demo, "import", "runs", "--instance", "demo", "--build", "1.4.2", "-").want(t, 0)
	found, err := filepath.Glob("runs/demo/2*")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	dir := found[0]
	const st, pf = "demo.statement", "order.proof"
	shown := func(args ...string) string {
		r := do(t, args...)
		for _, line := range strings.Split(strings.TrimSuffix(r.out+r.stderr, "\n"), "\n") {
			if line = anonymous(line); line != "" && !strings.Contains(page, "\n    "+line+"\n") {
				t.Errorf("runlog %s prints a line that is not on the page: %s", strings.Join(args, " "), line)
			}
		}
		return r.out
	}
	keep := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown("keygen", "desk-1.example.com", "desk.key")
	keep(st, shown("statement", dir, "--key", "desk.key"))
	shown("check-statement", dir, "--statement", st, "--pub", "desk.key.pub")
	keep(pf, shown("prove", dir, "--order", "venue_order_id=6412777276324"))
	shown("check-proof", pf, "--statement", st, "--pub", "desk.key.pub")
	changed, err := os.ReadFile(pf)
	if err != nil {
		t.Fatal(err)
	}
	keep("changed.proof", strings.Replace(string(changed), "3 @ 4799.00", "9 @ 4799.00", 1))
	shown("check-proof", "changed.proof", "--statement", st, "--pub", "desk.key.pub")
	shown("sign", dir, "--key", "desk.key")
	shown("check-statement", dir, "--pub", "desk.key.pub")
}

// The page's own key, statement and proof are a pair of files that hold.
func TestThePagesProofHolds(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	example := func(first string) string {
		_, rest, ok := strings.Cut(string(b), "\n    $ "+first)
		_, rest, ok2 := strings.Cut(rest, "\n")
		if !ok || !ok2 {
			t.Fatalf("no example of %s", first)
		}
		var text strings.Builder
		for i, line := range strings.Split(rest, "\n") {
			if line != "" && !strings.HasPrefix(line, "    ") || line == "" && !strings.HasPrefix(strings.Split(rest, "\n")[i+1], "    \u2014") {
				break
			}
			text.WriteString(strings.TrimPrefix(line, "    ") + "\n")
		}
		return text.String()
	}
	t.Chdir(t.TempDir())
	for file, first := range map[string]string{"pub": "runlog keygen", "statement": "runlog statement", "proof": "runlog prove"} {
		if err := os.WriteFile(file, []byte(example(first)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do(t, "check-proof", "proof", "--statement", "statement", "--pub", "pub").want(t, 0)
}

func BenchmarkStatement(b *testing.B) {
	dir := benchRun(b, 100_000)
	start := time.Now()
	for b.Loop() {
		do(b, "statement", dir).want(b, 0)
	}
	b.ReportMetric(float64(b.N)*100_000/time.Since(start).Seconds(), "entries/s")
}
