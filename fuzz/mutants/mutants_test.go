package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
)

// alive is the package that exists in the mutants' build only.
const alive = `package mutant

import "os"

var name = os.Getenv("RUNLOG_MUTANT")

// On reports whether a mutant is the one that is alive.
func On(n string) bool { return n == name }
`

// rowPackage is where a row's test is, if it is not in package fuzz.
var rowPackage = map[string]string{"differ": "./fuzz/slow", "differ-packed": "./fuzz/slow", "steps": "./fuzz/steps"}

// importing adds an import to a source, if it is not there.
func importing(text, path string) string {
	if strings.Contains(text, `"`+path+`"`) {
		return text
	}
	clause := regexp.MustCompile(`(?m)^package \w+$`).FindString(text)
	return strings.Replace(text, clause, clause+"\nimport \""+path+"\"\n", 1)
}

// overlay writes the patched sources and returns the file for the compiler.
func overlay(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	put := func(name, text string) {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, name)] = to
	}
	sources := map[string]string{}
	for _, p := range patches {
		text, ok := sources[p.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, p.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if n := strings.Count(text, p.old); n != 1 {
			t.Fatalf("%s has changed: the text that a mutant replaces is there %d times:\n%s", p.file, n, p.old)
		}
		text = importing(text, "github.com/runlog-io/runlog/internal/mutant")
		sources[p.file] = strings.Replace(text, p.old, p.new, 1)
	}
	for name, text := range sources {
		put(name, text)
	}
	put("internal/mutant/mutant.go", alive)
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// lab builds test programs of the mutated engine, each once.
type lab struct {
	t       *testing.T
	root    string
	overlay string
	mu      sync.Mutex
	built   map[string]string
}

func (l *lab) program(pkg string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name, ok := l.built[pkg]; ok {
		return name, nil
	}
	name := filepath.Join(l.t.TempDir(), filepath.Base(pkg)+".test")
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", l.overlay, "-o", name, pkg)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go test -c -overlay: %w\n%s", err, out)
	}
	l.built[pkg] = name
	return name, nil
}

// testOf returns the name of the row's test: the function that calls matrix.Run for it.
func (l *lab) testOf(pkg, row string) (string, error) {
	files, err := filepath.Glob(filepath.Join(l.root, pkg, "*_test.go"))
	if err != nil {
		return "", err
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		before, _, found := strings.Cut(string(b), fmt.Sprintf("matrix.Run(t, %q", row))
		if tests := regexp.MustCompile(`func (Test\w+)`).FindAllStringSubmatch(before, -1); found && len(tests) > 0 {
			return tests[len(tests)-1][1], nil
		}
	}
	return "", fmt.Errorf("%s has no test for row %s", pkg, row)
}

// run runs a row with a mutant alive; "" means none. It returns what the row's record says, empty if the row did not come
// as far as to its first case, and whether it passed.
func (l *lab) run(row, mutant, mode string) (res matrix.Result, passed bool, out []byte, err error) {
	pkg := rowPackage[row]
	if pkg == "" {
		pkg = "./fuzz"
	}
	program, err := l.program(pkg)
	if err != nil {
		return res, false, nil, err
	}
	test, err := l.testOf(pkg, row)
	if err != nil {
		return res, false, nil, err
	}
	record := filepath.Join(l.t.TempDir(), "record")
	cmd := exec.Command(program, "-test.run=^"+test+"$", "-test.timeout=5m")
	cmd.Dir = filepath.Join(l.root, pkg)
	cmd.Env = append(os.Environ(), "RUNLOG_MUTANT="+mutant, "RUNLOG_MATRIX="+mode, "RUNLOG_MATRIX_OUT="+record, "RUNLOG_SEED=") // the seed is ours: it chooses the mutant
	out, err = cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		return res, false, out, err
	}
	passed = err == nil
	b, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) && !passed {
		return res, false, out, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &res)
	}
	return res, passed, out, err
}

// verdict is nil if the row has noticed the mutant: its own judge must have found something. A row that was too slow, could
// not be set up, or crashed, has failed, too, and would so without anybody knowing what the matrix is worth.
func verdict(m *Mutant, res *matrix.Result, passed bool, out []byte) error {
	words, early := beforehand[m.Name]
	switch {
	case passed:
		return fmt.Errorf("it lives: %d cases of row %s found nothing", res.Cases, m.Row)
	case early && res.Cases == 0 && strings.Contains(string(out), words):
	case res.Findings == 0:
		return fmt.Errorf("row %s failed without a finding, after %d cases", m.Row, res.Cases)
	}
	return nil
}

func TestARowThatFailsWithoutAFindingHasNotCaughtAMutant(t *testing.T) {
	for what, c := range map[string]struct {
		mutant string
		out    string
		res    matrix.Result
		passed bool
		caught bool
	}{
		"a finding":                  {"any", "", matrix.Result{Cases: 3, Findings: 1}, false, true},
		"nothing found":              {"any", "", matrix.Result{Cases: 3}, true, false},
		"no record: it died early":   {"any", "panic: test timed out", matrix.Result{}, false, false},
		"a failure beside the row":   {"any", "", matrix.Result{Cases: 3}, false, false},
		"noticed beforehand":         {"drop-salt", "torn: no power cut tears the last batch", matrix.Result{}, false, true},
		"beforehand, something else": {"drop-salt", "no space left on device", matrix.Result{}, false, false},
		"another's words":            {"any", "torn: no power cut tears the last batch", matrix.Result{}, false, false},
	} {
		m := &Mutant{Name: c.mutant, Row: "power"}
		if err := verdict(m, &c.res, c.passed, []byte(c.out)); (err == nil) != c.caught {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func newLab(t *testing.T) *lab {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t: t, root: root, overlay: overlay(t, root), built: map[string]string{}}
}

// TestEveryMutantIsCaughtByItsRow: the fault matrix would notice. Without a mutant alive, the same programs pass.
func TestEveryMutantIsCaughtByItsRow(t *testing.T) {
	l := newLab(t)
	var mu sync.Mutex
	var caught []string
	sound := map[string]bool{}
	matrix.Run(t, "mutants", func(c *matrix.Cases) error {
		m := All[(c.Seed-1)%uint64(len(All))]
		if !c.Next() {
			return nil
		}
		mu.Lock()
		known := sound[m.Row]
		sound[m.Row] = true
		mu.Unlock()
		if !known {
			if _, passed, out, err := l.run(m.Row, "", "short"); err != nil || !passed {
				return fmt.Errorf("row %s, no mutant alive: passed %v, %w\n%s", m.Row, passed, err, out)
			}
		}
		res, passed, out, err := l.run(m.Row, m.Name, "ci")
		if err != nil {
			return fmt.Errorf("mutant %s: %w", m.Name, err)
		}
		if err := verdict(&m, &res, passed, out); err != nil {
			return fmt.Errorf("mutant %s (%s): %w\n%s", m.Name, m.What, err, out)
		}
		t.Logf("%s (%s): caught by %s after %d cases, %.1f s", m.Name, m.What, m.Row, res.Cases, res.Seconds)
		mu.Lock()
		caught = append(caught, m.Name)
		mu.Unlock()
		return nil
	}, matrix.KeepGoing(), matrix.Detail(func() string { return fmt.Sprintf("%d of %d mutants caught", len(caught), len(All)) }))
}

func TestEveryMutantHasItsPatchAndIsCounted(t *testing.T) {
	var text strings.Builder
	for _, p := range patches {
		text.WriteString(p.new)
	}
	for _, m := range All {
		if n := strings.Count(text.String(), fmt.Sprintf("mutant.On(%q)", m.Name)); n == 0 {
			t.Errorf("%s has no patch", m.Name)
		}
		if matrix.Find(m.Row) == nil {
			t.Errorf("%s is to be caught by %q, which is no row", m.Name, m.Row)
		}
	}
	for name := range beforehand {
		if !slices.ContainsFunc(All, func(m Mutant) bool { return m.Name == name }) {
			t.Errorf("%s is no mutant", name)
		}
	}
	if row := matrix.Find("mutants"); row.CI != int64(len(All)) {
		t.Errorf("the row of mutants has %d cases, there are %d", row.CI, len(All))
	}
}
