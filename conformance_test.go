package runlog_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// groupSizes says how many cases each group of the original has.
var groupSizes = map[string]int{
	"EH": 15, "CD": 22, "BK": 27, "MB": 4, "DB": 25, "WR": 14, "HB": 12, "CA": 19, "RG": 26, "DD": 5, "HC": 6, "LC": 31, "MF": 4, "SA": 9, "RD": 16,
	"VF": 17, "VC": 14, "RT": 10, "RP": 30, "DM": 50, "CF": 4,
}

// gaps is the number of gaps of the original.
const gaps = 67

// leastGroups is how many groups the page must have.
const leastGroups = 21

var testName = regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z0-9]\\w*)`")

// later finds answers that put a case off.
var later = regexp.MustCompile(`\b(?:not yet|comes? with|to come)\b`)

// docs/conformance.md promises tests by name; here each of them must exist, and no case may be left out.
func TestConformanceNamesTests(t *testing.T) {
	page, err := os.ReadFile("docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredTests(t)
	named := testName.FindAllSubmatch(page, -1)
	if len(named) < 200 {
		t.Errorf("the page names %d tests only", len(named))
	}
	for _, m := range named {
		if !declared[string(m[1])] {
			t.Errorf("docs/conformance.md names %s, which does not exist", m[1])
		}
	}
	for _, problem := range unanswered(string(page)) {
		t.Error(problem)
	}
}

// declaredTests lists the tests of all modules.
func declaredTests(t *testing.T) map[string]bool {
	declared := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range decl.FindAllSubmatch(src, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

// unanswered lists the cases and gaps that the page lacks, has twice, or does not answer.
func unanswered(page string) (problems []string) {
	file := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	groups := regexp.MustCompile(`(?m)^## ([A-Z]{2}): `).FindAllStringSubmatch(page, -1)
	if len(groups) < leastGroups {
		file("%d groups on the page, want at least %d", len(groups), leastGroups)
	}
	answers := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-Z]{1,2}\d+)[a-z]? \| .+ \| (.+) \|$`).FindAllStringSubmatch(page, -1) {
		answers[m[1]] = append(answers[m[1]], m[2])
	}
	want := map[string]bool{}
	for _, g := range groups {
		size, known := groupSizes[g[1]]
		if !known {
			file("the original has no group %s", g[1])
		}
		for n := 1; n <= size; n++ {
			want[fmt.Sprint(g[1], n)] = true
		}
	}
	for n := 1; n <= gaps; n++ {
		name := fmt.Sprint("G", n)
		want[name] = true
		for _, a := range answers[name] {
			if !testName.MatchString(a) && !strings.Contains(a, "does not apply") && !strings.Contains(a, "see group ") {
				file("%s is closed by no test, and there is no word why: %s", name, a)
			}
		}
	}
	for name := range want {
		switch n := len(answers[name]); {
		case n == 0:
			file("%s is not on the page", name)
		case n > 1:
			file("%s is there %d times", name, n)
		}
		for _, a := range answers[name] {
			if later.MatchString(a) {
				file("%s is put off: %s", name, a)
			}
		}
	}
	for name := range answers {
		if !want[name] {
			file("%s is on the page, but is no case of a group there", name)
		}
	}
	return problems
}

func TestAConformancePageThatLeavesSomethingOutIsNoticed(t *testing.T) {
	b, err := os.ReadFile("docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	row := func(name string) string {
		return regexp.MustCompile(`(?m)^\| ` + name + ` \|.*\n`).FindString(page)
	}
	for name, changed := range map[string]string{
		"LC7 is not on the page":             strings.Replace(page, row("LC7"), "", 1),
		"G67 is not on the page":             strings.Replace(page, row("G67"), "", 1),
		"G1 is there 2 times":                page + row("G1"),
		"CF2 is there 2 times":               page + row("CF2"),
		"RD5 is put off":                     strings.Replace(page, row("RD5"), "| RD5 | what | not yet: as RD2 |\n", 1),
		"G2 is closed by no test":            strings.Replace(page, row("G2"), "| G2 | what | surely |\n", 1),
		"LC99 is on the page":                page + "| LC99 | what | why |\n",
		"LC1 is on the page, but is no case": strings.Replace(page, "## LC: ", "## ", 1),
		"0 groups on the page":               strings.ReplaceAll(page, "\n## ", "\n### "),
		"the original has no group ZZ":       page + "\n## ZZ: what\n",
	} {
		if got := strings.Join(unanswered(changed), "\n"); !strings.Contains(got, name) {
			t.Errorf("%q is not among\n%s", name, got)
		}
	}
}
