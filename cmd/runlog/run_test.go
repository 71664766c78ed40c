package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
)

// result of one invocation.
type result struct {
	code        int
	out, stderr string
}

func runlogWith(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &stderr)
	return result{code, out.String(), stderr.String()}
}

func do(t testing.TB, args ...string) result { t.Helper(); return runlogWith(t, "", args...) }

// want fails unless the command ended with this code, and said so (or said nothing) on stderr.
func (r result) want(t testing.TB, code int, onStderr ...string) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %.2000s\nstderr: %s", r.code, code, r.out, r.stderr)
	}
	words := []string{"BAD", `"ok":false`, "QUARANTINED", "lost: "}
	said := func(word string) bool { return strings.Contains(r.out, word) }
	if code != 0 && !strings.Contains(r.stderr, "runlog: ") && !slices.ContainsFunc(words, said) {
		t.Errorf("exit code %d without a word: %q", code, r.stderr)
	}
	for _, s := range onStderr {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("stderr %q does not say %q", r.stderr, s)
		}
	}
	if strings.Contains(r.stderr, "goroutine") || strings.Contains(r.stderr, "Usage:") {
		t.Errorf("stderr: %s", r.stderr)
	}
	return r
}

func (r result) lines() []string {
	if r.out == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
}

// full is a line with every optional field, odd text and a key that is there twice.
const full = `{"seq":2,"topic":"orders.é\"\\","type":"New\u0001","ts_init":-9223372036854775808,"ts_publish":9223368000000000000,` +
	`"id":"00112233-4455-6677-8899-aabbccddeeff","correlation_id":"0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11",` +
	`"causation_id":"ffffffff-ffff-ffff-ffff-ffffffffffff",` +
	`"keys":{"zebra":["z1","z2","z1"],"client_order_id":["C-1"],"konto":["\"x\""]},"payload":"a\"b\\c\n\t\r\u0000\u001f</ é 世 \ud83d\ude00"}`

// fullOut is how export prints it.
var fullOut = strings.ReplaceAll(full, `\ud83d\ude00`, "\U0001F600")

const binary = `{"seq":3,"topic":"t","type":"B","ts_init":9223372036854775807,"ts_publish":9223368000000000001,"keys":{},"payload_base64":"/wD+"}`
const empty = `{"seq":4,"topic":"t","type":"E","ts_init":0,"ts_publish":9223368000000000002,"keys":{"client_order_id":["C-1"]},"payload":""}`

const threeLines = full + "\n" + binary + "\n" + empty + "\n"

// imported imports lines and returns base and run folder.
func imported(t testing.TB, lines string, more ...string) (base, dir string) {
	t.Helper()
	base = filepath.Join(t.TempDir(), "runs")
	r := runlogWith(t, lines, append([]string{"import", base, "--instance", "demo", "-"}, more...)...).want(t, 0)
	if r.stderr != "" {
		t.Errorf("stderr: %s", r.stderr)
	}
	l := r.lines()
	dir = l[len(l)-1]
	if filepath.Dir(filepath.Dir(dir)) != base {
		t.Fatalf("last line is %q", dir)
	}
	return base, dir
}

// many makes n lines.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"topic":"orders.%d","type":"New","ts_init":%d,"keys":{"venue_order_id":["%d"],"account":["a%d"]},"payload":"%s"}`+"\n",
			i%3, 1000+i, 6412777276000+i/4, i%7, strings.Repeat("x", 100))
	}
	return b.String()
}

// crashed makes a run that its process has left unsealed, in a base folder of its own.
func crashed(t testing.TB, n int) (base, dir string) {
	t.Helper()
	r, err := runlog.Open(t.Context(), runlog.Options{
		Dir: t.TempDir(), Instance: "demo", WarnAfter: -1, HaltAfter: -1, IdleMark: time.Millisecond,
		SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.DeclareKind("account"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := r.Append(t.Context(), runlog.Draft{Topic: "a", Type: "b", TsInit: int64(i), Payload: bytes.Repeat([]byte{'p'}, 200),
			Keys: []runlog.Key{{Kind: "account", Value: "A"}}}); err != nil {
			t.Fatal(err)
		}
	}
	awaitMark(t, r.Dir(), r.Accepted())
	base = t.TempDir()
	dir = filepath.Join(base, "demo", r.ID())
	if err := os.CopyFS(dir, os.DirFS(r.Dir())); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return base, dir
}

// awaitMark waits until a sync mark proves the last entry.
func awaitMark(t testing.TB, dir string, last uint64) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		proven := uint64(0)
		names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // a spare that has just got its name
			}
			if h, err := segment.ReadHeader(bytes.NewReader(b), name); err == nil {
				segment.FindCommits(b, h.Salt, 0, func(c segment.Commit) bool {
					if c.Flags&segment.FlagMark != 0 {
						proven = max(proven, c.LastSeq)
					}
					return true
				})
			}
		}
		if proven == last {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("seq %d is proven, not %d", proven, last)
		}
	}
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTripIsExact(t *testing.T) {
	_, dir := imported(t, threeLines)
	want := fullOut + "\n" + binary + "\n" + empty + "\n"
	once := do(t, "export", dir).want(t, 0)
	if once.out != want {
		t.Fatalf("export gives\n%s\nwant\n%s", once.out, want)
	}
	_, again := imported(t, once.out)
	if twice := do(t, "export", again, "--json").want(t, 0); twice.out != once.out {
		t.Errorf("the second export gives\n%s", twice.out)
	}
}

func TestRoundTripOfManySegments(t *testing.T) {
	_, dir := crashed(t, 900) // three segments or more, not sealed
	a := do(t, "export", dir).want(t, 0)
	if n := len(a.lines()); n != 900 {
		t.Fatalf("%d lines", n)
	}
	_, again := imported(t, a.out)
	if b := do(t, "export", again).want(t, 0); b.out != a.out {
		t.Error("the second export differs")
	}
	do(t, "verify", dir).want(t, 0)
	do(t, "verify", again).want(t, 0)
}

func TestImportTakesZstdFilesAndLongLines(t *testing.T) {
	long := `{"topic":"t","type":"L","ts_init":1,"ts_publish":5,"payload":"` + strings.Repeat(`\u0041é`, 1<<20) + `"}`
	input := "\n" + long + "\r\n  \n" + `{"type":"E","topic":"t","ts_init":2,"payload":"no line end"}`
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(input)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	skippable := append([]byte{0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, z.Bytes()...)
	plainFile, zstdFile := filepath.Join(t.TempDir(), "a.txt"), filepath.Join(t.TempDir(), "a.jsonl")
	if err := errors.Join(os.WriteFile(plainFile, []byte(input), 0o644), os.WriteFile(zstdFile, z.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	for name, r := range map[string]result{
		"plain file":      do(t, "import", base, "--instance", "a", plainFile),
		"zstd file":       do(t, "import", base, "--instance=b", zstdFile),
		"zstd stdin":      runlogWith(t, z.String(), "import", "--instance", "c", base, "-"),
		"skippable frame": runlogWith(t, string(skippable), "import", base, "-", "--instance", "d"),
	} {
		dir := strings.TrimSpace(r.want(t, 0).out)
		lines := do(t, "export", dir).want(t, 0).lines()
		if len(lines) != 2 || len(lines[0]) < 3<<20 || !strings.Contains(lines[1], "no line end") {
			t.Errorf("%s: %d lines", name, len(lines))
		}
	}
	r := runlogWith(t, string(z.Bytes()[:z.Len()-7]), "import", base, "--instance", "e", "-").want(t, 1, "line ")
	if r.out != "" {
		t.Errorf("stdout: %s", r.out)
	}
}

func TestSmallPublishTimesAreKept(t *testing.T) {
	for _, first := range []string{"1", "2", "-1", "-5000"} {
		_, dir := imported(t, `{"topic":"t","type":"x","ts_init":0,"ts_publish":`+first+`}`+"\n"+`{"topic":"t","type":"x","ts_init":0,"ts_publish":3}`)
		if l := do(t, "export", dir).want(t, 0).lines(); len(l) != 2 || !strings.Contains(l[0], `"ts_publish":`+first+",") {
			t.Errorf("%s: %v", first, l)
		}
		if out := do(t, "cat", dir, "--json", "--until", "2").want(t, 0).lines(); len(out) != 2 {
			t.Errorf("%s: until 2: %v", first, out)
		}
		do(t, "verify", dir).want(t, 0)
	}
}

func TestEmptyImportIsARun(t *testing.T) {
	_, dir := imported(t, "")
	if out := do(t, "export", dir).want(t, 0).out; out != "" {
		t.Error(out)
	}
	do(t, "verify", dir).want(t, 0)
}

func TestMalformedLineNamesItselfAndLeavesNothing(t *testing.T) {
	good := `{"topic":"t","type":"x","ts_init":1,"ts_publish":100,"payload":"p"}`
	for line, why := range map[string]string{
		`not json`:     "want a JSON object",
		`[1]`:          "want a JSON object",
		`{"topic":"t"`: "want , or }",
		`{"topic":"t","type":"x","ts_init":1,"payload":"p"} x`:                                  "something follows",
		`{"topic":"t","type":"x","ts_init":1,"payload":"p","colour":"red"}`:                     `unknown field "colour"`,
		`{"topic":"t","topic":"u","type":"x","ts_init":1,"payload":"p"}`:                        "twice",
		`{"topic":"t","type":"x","ts_init":1,"payload":"p","payload_base64":"cA=="}`:            "both",
		`{"type":"x","ts_init":1,"payload":"p"}`:                                                `"topic" is missing`,
		`{"topic":"t","ts_init":1,"payload":"p"}`:                                               `"type" is missing`,
		`{"topic":"t","type":"x","payload":"p"}`:                                                `"ts_init" is missing`,
		`{"topic":"t","type":"x","ts_init":1.5}`:                                                "fraction",
		`{"topic":"t","type":"x","ts_init":1e3}`:                                                "exponent",
		`{"topic":"t","type":"x","ts_init":9223372036854775808}`:                                "64 bits",
		`{"topic":"t","type":"x","ts_init":99999999999999999999}`:                               "64 bits",
		`{"topic":"t","type":"x","ts_init":-9223372036854775809}`:                               "64 bits",
		`{"topic":"t","type":"x","ts_init":"1"}`:                                                "want an integer",
		`{"topic":"t","type":"x","ts_init":01}`:                                                 "leading zeros",
		`{"topic":"t","type":"x","ts_init":null}`:                                               "want an integer",
		`{"topic":"t","type":"x","ts_init":1,"ts_publish":0}`:                                   "cannot be kept",
		`{"topic":"t","type":"x","ts_init":1,"ts_publish":100}`:                                 "does not come after",
		`{"topic":"t","type":"x","ts_init":1,"ts_publish":9223372036854775807}`:                 "too late",
		`{"topic":"t","type":"x","ts_init":1,"id":"1234"}`:                                      "not a UUID",
		`{"topic":"t","type":"x","ts_init":1,"id":"00000000-0000-0000-0000-000000000000"}`:      "unset",
		`{"topic":"t","type":"x","ts_init":1,"correlation_id":7}`:                               "want a string",
		`{"topic":"t","type":"x","ts_init":1,"keys":["a"]}`:                                     "want a JSON object",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"a":"b"}}`:                                 "want a list",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"a":[1]}}`:                                 "want a string",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"a":["1"],"a":["2"]}}`:                     "twice",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"":["v"]}}`:                                "a kind has no name",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"a":[""]}}`:                                "1 to 255",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"id":["x"]}}`:                              "taken from the entry",
		`{"topic":"t","type":"x","ts_init":1,"keys":{"` + strings.Repeat("k", 65) + `":["x"]}}`: "1 to 64",
		`{"topic":"","type":"x","ts_init":1}`:                                                   "topic",
		`{"topic":"` + strings.Repeat("t", 256) + `","type":"x","ts_init":1}`:                   "topic",
		`{"topic":"run.lifecycle.RunEnded","type":"x","ts_init":1}`:                             "lifecycle",
		`{"topic":"t","type":"x","ts_init":1,"payload_base64":"a"}`:                             "base64",
		`{"topic":"t","type":"x","ts_init":1,"payload_base64":"cA\n=="}`:                        "base64",
		`{"topic":"t","type":"x","ts_init":1,"payload":"` + "\xff" + `"}`:                       "not UTF-8",
		`{"topic":"t","type":"x","ts_init":1,"payload":"\ud800"}`:                               "surrogate",
		`{"topic":"t","type":"x","ts_init":1,"payload":"\ud800\u0041"}`:                         "surrogate",
		`{"topic":"t","type":"x","ts_init":1,"payload":"\x"}`:                                   "escape",
		`{"topic":"t","type":"x","ts_init":1,"payload":"\u12g4"}`:                               "hex",
		`{"topic":"t","type":"x","ts_init":1,"payload":"` + "\x01" + `"}`:                       "control character",
		`{"topic":"t","type":"x","ts_init":1,"payload":"`:                                       "inside a string",
		`{"topic":"t","type":"x","ts_init":1,"payload":"` + strings.Repeat("x", 8<<20+1) + `"}`: "payload",
		`{"seq":` + strings.Repeat("[", 200) + `,"topic":"t"}`:                                  "nested",
	} {
		parent := t.TempDir()
		base := filepath.Join(parent, "new", "base")
		r := runlogWith(t, good+"\n\n"+line+"\n", "import", base, "--instance", "i", "-").want(t, 1, "stdin: line 3: ", why)
		if r.out != "" {
			t.Errorf("%.80s: stdout %q", line, r.out)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%.80s: left behind: %v", line, left)
		}
	}
	base, _ := imported(t, good+"\n")
	before := tree(t, base)
	runlogWith(t, good+"\nx\n", "import", base, "--instance", "demo", "-").want(t, 1, "line 2")
	if after := tree(t, base); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}

// tree lists all paths below dir.
func tree(t testing.TB, dir string) (list []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		list = append(list, p)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatCannotBeDoneIsTwo(t *testing.T) {
	base, dir := imported(t, threeLines)
	inst := filepath.Dir(dir)
	none := t.TempDir()
	foreignDir := t.TempDir()
	file := filepath.Join(foreignDir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(none, "gone")
	for _, c := range []struct {
		args []string
		why  string
	}{
		{[]string{}, "no command"},
		{[]string{"list", base}, "unknown command"},
		{[]string{"ls"}, "want DIR"},
		{[]string{"ls", base, base}, "want DIR"},
		{[]string{"ls", gone}, "no such file"},
		{[]string{"ls", none}, "empty"},
		{[]string{"ls", foreignDir}, "no run below it"},
		{[]string{"ls", file}, "not a folder"},
		{[]string{"ls", dir}, "runlog info"},
		{[]string{"ls", inst}, "the base is " + base},
		{[]string{"info", base}, "base folder"},
		{[]string{"info", inst}, "instance's folder"},
		{[]string{"cat", none}, "empty"},
		{[]string{"cat", foreignDir}, "none of a run's files"},
		{[]string{"cat", file}, "not a folder"},
		{[]string{"cat", gone}, "no such file"},
		{[]string{"cat", dir, "--from", "x"}, "from"},
		{[]string{"cat", dir, "--to", "0"}, "--to 0"},
		{[]string{"cat", dir, "--limit", "0"}, "--limit"},
		{[]string{"cat", dir, "--topic", ""}, "--topic"},
		{[]string{"cat", dir, "--since", "noon"}, "--since"},
		{[]string{"cat", dir, "--until", "9999-01-01T00:00:00Z"}, "--until"},
		{[]string{"cat", dir, "--by", "x"}, "--by"},
		{[]string{"cat", dir, "--bogus"}, "bogus"},
		{[]string{"get", dir}, "want RUN SEQ"},
		{[]string{"get", dir, "x"}, "not a seq"},
		{[]string{"get", dir, "0"}, "no such entry"},
		{[]string{"get", dir, "6"}, "no such entry"},
		{[]string{"get", dir, "-1"}, ""},
		{[]string{"history", dir, "colour=red"}, "undeclared key kind"},
		{[]string{"history", dir, "colour"}, "want KIND=VALUE"},
		{[]string{"history", dir, "konto="}, "want KIND=VALUE"},
		{[]string{"history", dir, "id=7"}, "UUID"},
		{[]string{"verify", none}, "empty"},
		{[]string{"verify", foreignDir}, "not a run"},
		{[]string{"verify"}, "want PATH"},
		{[]string{"verify", gone}, "no such file"},
		{[]string{"verify", dir, "--jobs", "0"}, "--jobs"},
		{[]string{"verify", dir, "--timeout", "-1s"}, "--timeout"},
		{[]string{"verify", dir, "--timeout", "soon"}, "timeout"},
		{[]string{"verify", dir, "--timeout", "7"}, "timeout"},
		{[]string{"verify", dir, "--timeout", "1s", "--no-isolate"}, "--no-isolate"},
		{[]string{"recover", gone}, "no such file"},
		{[]string{"recover", foreignDir}, "not a run"},
		{[]string{"salvage", dir}, "want RUN OUT"},
		{[]string{"salvage", inst, gone}, "instance's folder"},
		{[]string{"salvage", dir, none}, "is there already"},
		{[]string{"salvage", dir, filepath.Join(dir, "out")}, "own folder"},
		{[]string{"why", dir, "x"}, "not a seq"},
		{[]string{"why", dir, "77"}, "no such entry"},
		{[]string{"why", dir, "2", "--limit", "0"}, "--limit"},
		{[]string{"export", base}, "base folder"},
		{[]string{"import", base, file}, "--instance"},
		{[]string{"import", base, "--instance", "a/b", file}, "Instance"},
		{[]string{"import", base, "--instance", "", file}, "Instance"},
		{[]string{"import", base, "--instance", "a", gone}, "no such file"},
		{[]string{"import", base, "--instance", "a", base}, "is a folder"},
		{[]string{"import", base, "--instance", "a", "--label", "x", file}, "--label"},
		{[]string{"import", file, "--instance", "a", "-"}, ""},
		{[]string{"version", "x"}, "arguments"},
	} {
		r := do(t, c.args...).want(t, 2, c.why)
		if r.out != "" {
			t.Errorf("%v: stdout %q", c.args, r.out)
		}
	}
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	_, dir := imported(t, many(20))
	want := do(t, "cat", dir, "--from", "3", "--to", "5", "--json").want(t, 0)
	if len(want.lines()) != 3 {
		t.Fatal(want.out)
	}
	for _, args := range [][]string{
		{"--json", "cat", "--from=3", "--to=5", dir}, {"cat", "--json", dir, "--to", "5", "--from", "3"}, {"cat", "--from", "3", dir, "--to", "5", "--json"},
	} {
		if got := do(t, args...).want(t, 0); got.out != want.out {
			t.Errorf("%v: %s", args, got.out)
		}
	}
}

func TestCatSelects(t *testing.T) {
	_, dir := imported(t, many(30))
	seqs := func(args ...string) (list []uint64) {
		for _, l := range do(t, append([]string{"cat", dir, "--json"}, args...)...).want(t, 0).lines() {
			var e struct{ Seq uint64 }
			if err := json.Unmarshal([]byte(l), &e); err != nil {
				t.Fatal(err)
			}
			list = append(list, e.Seq)
		}
		return list
	}
	if all := seqs(); len(all) != 32 || all[0] != 1 || all[31] != 32 {
		t.Errorf("all: %v", all)
	}
	for _, c := range []struct {
		args []string
		want []uint64
	}{
		{[]string{"--from", "30"}, []uint64{30, 31, 32}},
		{[]string{"--from", "30", "--reverse"}, []uint64{32, 31, 30}},
		{[]string{"--from", "31", "--to", "99999"}, []uint64{31, 32}},
		{[]string{"--from", "9", "--to", "8"}, nil},
		{[]string{"--topic", "orders.1", "--to", "10"}, []uint64{3, 6, 9}},
		{[]string{"--type", "RunEnded"}, []uint64{32}},
		{[]string{"--topic", "order"}, nil},
		{[]string{"--since", "1020", "--until", "1022", "--by", "init", "--topic", "orders.0"}, []uint64{23}},
		{[]string{"--limit", "2", "--reverse"}, []uint64{32, 31}},
		{[]string{"--until", "1970-01-01T00:00:00Z"}, nil},
	} {
		if got := seqs(c.args...); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.args, got, c.want)
		}
	}
}

func TestHistoryAndGet(t *testing.T) {
	_, dir := imported(t, threeLines)
	for arg, want := range map[string]int{
		"client_order_id=C-1": 2, "zebra=z1": 1, "zebra=nobody": 0, "venue_order_id=1": 0, `konto="x"`: 1,
		"id=00112233-4455-6677-8899-AABBCCDDEEFF": 1, "correlation_id=0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11": 1,
	} {
		if got := len(do(t, "history", dir, arg).want(t, 0).lines()); got != want {
			t.Errorf("%s: %d lines, want %d", arg, got, want)
		}
	}
	if out := do(t, "get", dir, "2", "--json").want(t, 0).out; out != fullOut+"\n" {
		t.Errorf("get: %s", out)
	}
	out := do(t, "get", dir, "2").want(t, 0).out
	for _, s := range []string{"zebra=z2", "0193e0c4-", `0x6122625c`, `(24 bytes)`, "2262-04-11T22:40:00.000000000Z"} {
		if !strings.Contains(out, s) {
			t.Errorf("get does not show %q in\n%s", s, out)
		}
	}
	if out := do(t, "get", dir, "3").want(t, 0).out; !strings.Contains(out, "0xff00fe (3 bytes)") {
		t.Error(out)
	}
}

func TestHumanLinesAreCutUnlessFull(t *testing.T) {
	_, dir := imported(t, `{"topic":"t","type":"x","ts_init":1,"payload":"`+strings.Repeat("é", 500)+`"}`+"\n"+
		`{"topic":"t","type":"x","ts_init":1,"payload_base64":"/`+strings.Repeat("A", 399)+`"}`)
	short := do(t, "cat", dir, "--from", "2", "--to", "3").want(t, 0)
	if len(short.out) > 600 || !strings.Contains(short.out, "... (1000 bytes)") || !strings.Contains(short.out, "... (300 bytes)") {
		t.Error(short.out)
	}
	if long := do(t, "cat", dir, "--from", "2", "--to", "3", "--full").want(t, 0); strings.Contains(long.out, "...") || len(long.out) < 1600 {
		t.Error(long.out)
	}
}

// TestJSONFieldsArePinned compares field names and their order with docs/cli.md.
func TestJSONFieldsArePinned(t *testing.T) {
	base, dir := imported(t, threeLines)
	_, bad := imported(t, many(50))
	flip(t, filepath.Join(bad, "00000001.seg"), 5000)
	_, torn := crashed(t, 5)
	tear(t, torn)
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r      result
		fields string
	}{
		"ls":      {do(t, "ls", base, "--json"), "dir instance run status live started ended last_seq origin"},
		"info":    {do(t, "info", dir, "--json"), "dir state status live entries first_seq last_seq durable_seq bytes plain_bytes torn_bytes kinds anchors manifest segments warnings"},
		"lineage": {do(t, "lineage", base, "--json"), "dir instance run status live origin last_seq depth continued_by skipped_by"},
		"cat":     {do(t, "cat", dir, "--json", "--from", "2", "--limit", "1"), "seq topic type ts_init ts_publish id correlation_id causation_id keys payload"},
		"get":     {do(t, "get", dir, "3", "--json"), "seq topic type ts_init ts_publish keys payload_base64"},
		"history": {do(t, "history", dir, "zebra=z1", "--json"), "seq topic type ts_init ts_publish id correlation_id causation_id keys payload"},
		"verify":  {do(t, "verify", dir, "--json"), "record dir run status ok outcome findings entries last_seq segments bytes digest notes note_counts"},
		"total":   {lastLine(do(t, "verify", dir, "--json")), "record runs ok bad unchecked timeout died findings entries bytes seconds"},
		"recover": {do(t, "recover", torn, "--dry-run", "--json"),
			"record dir run dry_run decision status last_seq dropped_bytes file offset"},
		"salvaged": {lastLine(do(t, "salvage", bad, filepath.Join(t.TempDir(), "a"), "--json")),
			"record dir source source_run source_status entries lost lost_ranges note_count last_seq findings report"},
		"retain":   {do(t, "retain", filepath.Dir(dir), "--json"), "record dir run status remove first_seq last_seq bytes reason"},
		"retained": {lastLine(do(t, "retain", filepath.Dir(dir), "--json")), "record dir applied removals removals_done bytes removed_bytes over_bytes"},
		"lost":     {do(t, "salvage", bad, filepath.Join(t.TempDir(), "b"), "--json"), "record first_seq last_seq path offset detail"},
		"why":      {do(t, "why", dir, "2", "--json"), "link depth dir entry"},
		"finding":  {do(t, "verify", bad, "--json"), "record dir kind path offset first_seq last_seq detail"},
		"import":   {runlogWith(t, empty, "import", t.TempDir(), "--instance", "x", "-", "--json"), "dir run entries"},
		"compress": {do(t, "compress", base, "--json"), "record dir run segments compressed changed bytes plain_bytes"},
		"version":  {do(t, "version", "--json"), "version go formats"},
	} {
		first := c.r.lines()[0]
		d := json.NewDecoder(strings.NewReader(first))
		var got []string
		if _, err := d.Token(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, first)
		}
		for d.More() {
			field, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			if f := field.(string); f != "commit" { // depends on how the test was built
				got = append(got, f)
			}
			var any json.RawMessage
			if err := d.Decode(&any); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(doc, []byte("`"+field.(string)+"`")) {
				t.Errorf("%s: field %q is not in docs/cli.md", name, field)
			}
		}
		if strings.Join(got, " ") != c.fields {
			t.Errorf("%s has the fields\n%v, want\n%v", name, got, c.fields)
		}
	}
}

// lastLine keeps the last line of the output.
func lastLine(r result) result {
	l := r.lines()
	r.out = l[len(l)-1] + "\n"
	return r
}

func TestHelpTeaches(t *testing.T) {
	for _, verb := range []string{"ls", "info", "cat", "get", "history", "why", "seen", "markers", "verify", "recover", "salvage", "import", "export", "version"} {
		r := do(t, verb, "--help").want(t, 0)
		if !strings.Contains(r.out, "Examples:") || !strings.Contains(r.out, "--json") || r.stderr != "" {
			t.Errorf("%s: %s%s", verb, r.out, r.stderr)
		}
	}
	if r := do(t, "--help").want(t, 0); !strings.Contains(r.out, "Exit codes") {
		t.Error(r.out)
	}
	if r := do(t, "version").want(t, 0); !strings.Contains(r.out, "segment 1") {
		t.Error(r.out)
	}
}

// brokenWriter fails after some bytes.
type brokenWriter struct {
	n   int
	err error
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, w.err
	}
	return len(p), nil
}

func TestClosedPipeIsQuietAndFullDiskIsNot(t *testing.T) {
	_, dir := imported(t, many(5000))
	for _, args := range [][]string{{"export", dir}, {"cat", dir}, {"cat", dir, "--json", "--reverse"}, {"ls", filepath.Dir(filepath.Dir(dir))}} {
		n := 300 << 10
		if args[0] == "ls" {
			n = 0
		}
		var stderr bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader(""), &brokenWriter{n, syscall.EPIPE}, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%v: closed pipe: %d %s", args, code, &stderr)
		}
		code := run(t.Context(), args, strings.NewReader(""), &brokenWriter{n, syscall.ENOSPC}, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), "write the output") {
			t.Errorf("%v: full disk: %d %s", args, code, &stderr)
		}
	}
}

func TestInterruptedImportLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	defer pw.Close()
	base := filepath.Join(t.TempDir(), "base")
	go func() {
		_, _ = io.WriteString(pw, many(3000))
		cancel() // stdin stays open and silent
	}()
	var out, stderr bytes.Buffer
	code := run(ctx, []string{"import", base, "--instance", "x", "-"}, pr, &out, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%d %s", code, &stderr)
	}
	if _, err := os.Stat(base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", tree(t, base))
	}
}
