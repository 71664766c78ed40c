package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
)

// tool builds the tool, with or without the hooks that let workers misbehave, once for all tests.
func tool(t testing.TB, tags string) string {
	t.Helper()
	built, _ := tools.LoadOrStore(tags, sync.OnceValues(func() (string, error) {
		path := filepath.Join(toolDir, "runlog"+tags)
		out, err := exec.Command("go", "build", "-tags", tags, "-o", path, ".").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return path, err
	}))
	path, err := built.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var tools sync.Map // tags to what builds

const hooks = "runlog_hooks"

// command runs a built tool with a hook.
func command(t testing.TB, tags, hook string, args ...string) result {
	t.Helper()
	cmd := exec.Command(tool(t, tags), args...)
	cmd.Env = append(os.Environ(), "RUNLOG_TEST_WORKER="+hook)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// records decodes the lines of verify --json.
func records(t testing.TB, out string) (findings []findingJSON, runs []verifiedJSON, total verifiedTotalJSON) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for i, line := range lines {
		var is struct{ Record string }
		err := json.Unmarshal([]byte(line), &is)
		switch is.Record {
		case "finding":
			findings = append(findings, findingJSON{})
			err = json.Unmarshal([]byte(line), &findings[len(findings)-1])
		case "run":
			runs = append(runs, verifiedJSON{})
			err = json.Unmarshal([]byte(line), &runs[len(runs)-1])
		case "total":
			err = json.Unmarshal([]byte(line), &total)
			if i != len(lines)-1 {
				t.Errorf("the total is line %d of %d", i+1, len(lines))
			}
		default:
			t.Fatalf("line %q", line)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	if total.Record == "" {
		t.Error("there is no total")
	}
	return findings, runs, total
}

func TestVC1ACleanRunIsOneLineAndExitCodeZero(t *testing.T) {
	_, dir := imported(t, many(10))
	r := command(t, "", "", "verify", dir).want(t, 0)
	if l := r.lines(); len(l) != 1 || !strings.HasPrefix(l[0], dir+": ok: Ended, 12 entries in 1 segment") || r.stderr != "" {
		t.Errorf("%q %q", r.out, r.stderr)
	}
}

func TestVC4FindingsAreLinesOfTheirOwnAndExitCodeOne(t *testing.T) {
	_, dir := imported(t, many(200))
	flip(t, filepath.Join(dir, "00000001.seg"), 9000)
	flip(t, filepath.Join(dir, "00000001.seg"), 15000)
	r := command(t, "", "", "verify", dir).want(t, 1)
	l := r.lines()
	if r.stderr != "" || len(l) != 4 || !strings.HasPrefix(l[3], dir+": BAD, 3 findings: Ended") {
		t.Errorf("%q %q", r.out, r.stderr)
	}
	for i, kind := range []string{"frame: ", "frame: ", "digest: "} {
		if !strings.HasPrefix(l[i], kind+filepath.Join(dir, "00000001.seg")+": offset ") {
			t.Errorf("line %d: %s", i, l[i])
		}
	}
}

func TestVC8ASealedRunThatIsCutOrZeroedIsBad(t *testing.T) {
	_, dir := imported(t, many(400))
	path := filepath.Join(dir, "00000001.seg")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	zeroed := slices.Clone(sound)
	clear(zeroed[len(zeroed)*3/4:])
	for name, b := range map[string][]byte{"cut in half": sound[:len(sound)/2], "tail zeroed": zeroed} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if r := do(t, "verify", dir).want(t, 1); !strings.Contains(r.out, "BAD") {
			t.Errorf("%s: %s", name, r.out)
		}
	}
}

func TestVC10WhatCannotBeOpenedIsExitCodeTwoAndHidesNoOtherRun(t *testing.T) {
	_, dir := imported(t, many(10))
	gone := filepath.Join(t.TempDir(), "gone")
	if r := command(t, "", "", "verify", gone).want(t, 2, gone); r.out != "" {
		t.Errorf("stdout %q", r.out)
	}
	if r := command(t, "", "", "verify", gone, dir).want(t, 2, gone); !strings.Contains(r.out, dir+": ok") {
		t.Errorf("stdout %q", r.out)
	}
}

func TestVC11AWorkerThatDiesIsExitCodeFourAndNoDamage(t *testing.T) {
	_, dir := imported(t, many(10))
	for hook, want := range map[string]string{
		"abort": "SIGABRT: abort", "kill": "signal: killed", "panic": "panic: a bug in the check", "exit=0": "ended without a result",
		"exit=1": "exit status 1", "exit=3": "exit status 3",
		"late=5": "exit status 5", // a result that the worker does not stand by to the end is none
	} {
		r := command(t, hooks, hook, "verify", dir)
		if r.code != 4 || !strings.Contains(r.out, "WORKER DIED") || !strings.Contains(r.out, want) || strings.Contains(r.out, "BAD") {
			t.Errorf("%s: %d %q %q", hook, r.code, r.out, r.stderr)
		}
		r = command(t, hooks, hook, "verify", dir, "--json")
		findings, runs, total := records(t, r.out)
		if r.code != 4 || len(findings) != 0 || runs[0].OK || runs[0].Outcome != outcomeDied || runs[0].Worker == "" || total.Died != 1 || total.Bad != 0 {
			t.Errorf("%s: %d %s", hook, r.code, r.out)
		}
	}
}

func TestAWorkerWhoseOutputIsGarbledIsNoDamage(t *testing.T) {
	_, dir := imported(t, many(10))
	if r := command(t, hooks, "garbage", "verify", dir); r.code != 4 || !strings.Contains(r.out, "garbled output") {
		t.Errorf("%d %s", r.code, r.out)
	}
}

func TestVC12AWorkerThatIsTooSlowIsKilledAndExitCodeThree(t *testing.T) {
	_, dir := imported(t, many(10))
	start := time.Now()
	r := command(t, hooks, "hang", "verify", dir, "--timeout", "300ms")
	if r.code != 3 || !strings.Contains(r.out, "TIMEOUT, not done after 300ms") || strings.Contains(r.out, "BAD") {
		t.Errorf("%d %q %q", r.code, r.out, r.stderr)
	}
	if d := time.Since(start); d < 300*time.Millisecond || d > time.Minute {
		t.Errorf("it took %v", d)
	}
	r = command(t, hooks, "hang", "verify", dir, "--timeout", "300ms", "--json")
	if _, runs, total := records(t, r.out); r.code != 3 || runs[0].Outcome != outcomeTimeout || runs[0].OK || total.Timeout != 1 {
		t.Errorf("%d %s", r.code, r.out)
	}
	if r := command(t, hooks, "", "verify", dir, "--timeout", "0"); r.code != 0 { // none
		t.Errorf("%d %s", r.code, r.out)
	}
}

func TestOneWorkerThatDiesOrHangsCostsOneRun(t *testing.T) {
	t.Parallel()
	base, one := imported(t, many(10))
	for range 3 {
		runlogWith(t, many(10), "import", base, "--instance", "demo", "-").want(t, 0)
	}
	for hook, code := range map[string]int{"kill": 4, "hang": 3} {
		r := command(t, hooks, hook+"@"+filepath.Base(one), "verify", base, "--timeout", "10s", "--jobs", "2")
		if r.code != code || strings.Count(r.out, ": ok: ") != 3 || !strings.Contains(r.out, "4 runs: 3 ok, 1 ") {
			t.Errorf("%s: %d %s", hook, r.code, r.out)
		}
	}
	flip(t, filepath.Join(one, "00000001.seg"), -20)
	r := command(t, hooks, "kill@"+filepath.Base(one), "verify", base, one) // named twice, checked once
	if r.code != 4 || !strings.Contains(r.out, "4 runs: 3 ok, 1 worker died") {
		t.Errorf("%d %s", r.code, r.out)
	}
}

// More findings than a pipe holds, on both pipes.
func TestG39NoOutputOfAWorkerIsEverLostOrBlocksIt(t *testing.T) {
	_, dir := imported(t, many(10))
	const n = 20_000
	r := command(t, hooks, fmt.Sprint("findings=", n), "verify", dir, "--timeout", "5m", "--json")
	findings, runs, total := records(t, r.out)
	if r.code != 1 || len(findings) != n || len(r.out) < 1<<20 || runs[0].Findings != n || runs[0].Outcome != outcomeBad || total.Findings != n {
		t.Fatalf("code %d, %d findings, %d bytes", r.code, len(findings), len(r.out))
	}
	for i, f := range findings {
		if *f.Offset != int64(i) {
			t.Fatalf("finding %d is the one of offset %d", i, *f.Offset)
		}
	}
	if r := command(t, hooks, "stderr=100000", "verify", dir, "--timeout", "5m"); r.code != 0 || strings.Count(r.out, "\n") != 1 {
		t.Errorf("%d %s", r.code, r.out)
	}
}

// Who reads the tool's output may take longer than the timeout: that is not the worker's time.
func TestASlowReaderIsNoTimeout(t *testing.T) {
	t.Parallel()
	_, dir := imported(t, many(10))
	cmd := exec.Command(tool(t, hooks), "verify", dir, "--timeout", "10s", "--json")
	cmd.Env = append(os.Environ(), "RUNLOG_TEST_WORKER=findings=20000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(12 * time.Second)
	all, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if findings, runs, _ := records(t, string(all)); len(findings) != 20_000 || runs[0].Outcome != outcomeBad {
		t.Errorf("%d findings, %s", len(findings), runs[0].Outcome)
	}
}

func TestAStopwatchDoesNotCountPauses(t *testing.T) {
	const busy = 10 * time.Minute // what a machine with other work may take for the lines below
	c := stopwatch{start: time.Now().Add(-3 * time.Hour)}
	before := c.elapsed()
	c.pause()
	c.since = c.since.Add(-time.Hour) // it has begun an hour ago
	during := c.elapsed()
	c.resume()
	if after := c.elapsed(); before < 3*time.Hour || during > 2*time.Hour+busy || after > 2*time.Hour+busy || during < 2*time.Hour {
		t.Errorf("%v, in a pause %v, after it %v", before, during, after)
	}
	time.Sleep(5 * time.Millisecond)
	if now := c.elapsed(); now-during < 5*time.Millisecond {
		t.Errorf("it stands still at %v", now)
	}
}

func TestVC14AReleasedBuildHasNoHooks(t *testing.T) {
	_, dir := imported(t, many(10))
	for _, hook := range []string{"abort", "hang"} {
		command(t, "", hook, "verify", dir, "--timeout", "1m").want(t, 0)
	}
}

func TestVerifyWithoutWorkersSaysTheSame(t *testing.T) {
	base, one := imported(t, many(300))
	flip(t, filepath.Join(one, "00000001.seg"), 9000)
	runlogWith(t, many(10), "import", base, "--instance", "demo", "-").want(t, 0)
	said := func(args ...string) []string {
		r := command(t, hooks, "", append([]string{"verify", base, "--json"}, args...)...).want(t, 1)
		lines := r.lines()
		slices.Sort(lines[:len(lines)-1])
		return lines[:len(lines)-1] // the total has a time
	}
	if with, without := said(), said("--no-isolate"); !slices.Equal(with, without) {
		t.Errorf("%q\n%q", with, without)
	}
	if r := command(t, hooks, "abort", "verify", base, "--no-isolate"); r.code != 1 {
		t.Errorf("%d %s", r.code, r.out)
	}
}

func TestVerifyTakesRunsInstancesAndBases(t *testing.T) {
	base, one := imported(t, many(10))
	runlogWith(t, many(10), "import", base, "--instance", "other", "-").want(t, 0)
	for _, c := range []struct {
		paths []string
		runs  int
	}{{[]string{one}, 1}, {[]string{filepath.Dir(one)}, 1}, {[]string{base}, 2}, {[]string{base, one, filepath.Dir(one)}, 2}} {
		r := do(t, append([]string{"verify", "--json"}, c.paths...)...).want(t, 0)
		if _, runs, total := records(t, r.out); len(runs) != c.runs || total.Runs != c.runs || total.OK != c.runs {
			t.Errorf("%v: %s", c.paths, r.out)
		}
	}
}

func TestQuietVerifyPrintsWhatIsNotOK(t *testing.T) {
	base, one := imported(t, many(300))
	runlogWith(t, many(10), "import", base, "--instance", "other", "-").want(t, 0)
	if r := do(t, "verify", "--quiet", base).want(t, 0); r.out != "" || r.stderr != "" {
		t.Errorf("%q %q", r.out, r.stderr)
	}
	flip(t, filepath.Join(one, "00000001.seg"), 9000)
	if r := do(t, "verify", "-q", base).want(t, 1); len(r.lines()) != 3 || !strings.Contains(r.out, "BAD, 2 findings") {
		t.Error(r.out)
	}
}

func TestVerifyChangesNothing(t *testing.T) {
	base, one := imported(t, many(300))
	flip(t, filepath.Join(one, "00000001.seg"), 9000)
	_, torn := crashed(t, 20)
	tear(t, torn)
	for _, dir := range []string{base, torn} {
		before := tree(t, dir)
		do(t, "verify", dir)
		if after := tree(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: %v to %v", dir, before, after)
		}
	}
}

func TestVerifyRunsBesideAWriter(t *testing.T) {
	base := t.TempDir()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
				if _, err := r.Append(t.Context(), runlog.Draft{Topic: "a", Type: "b", Payload: make([]byte, 500)}); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 3 {
		if out := command(t, "", "", "verify", base).want(t, 0).out; !strings.Contains(out, "Live") {
			t.Error(out)
		}
	}
	close(stop)
	if err := errors.Join(<-done, r.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	do(t, "verify", base).want(t, 0)
}

// A tool that is killed takes its worker along.
func TestAWorkerDoesNotOutliveTheTool(t *testing.T) {
	_, dir := imported(t, many(10))
	cmd := exec.Command(tool(t, hooks), "verify", dir)
	cmd.Env = append(os.Environ(), "RUNLOG_TEST_WORKER=hang")
	pr, pw, err := os.Pipe() // the worker's stderr is not this one, but its stdout's reader is the tool
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	cmd.Stdout = pw
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = pw.Close()
	pid := child(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("worker %d still lives", pid)
		}
	}
}

// child waits for the worker of a tool.
func child(t testing.TB, pid int) int {
	t.Helper()
	if _, err := os.Stat("/proc/self/task"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs /proc to find the worker")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, name := range tasks {
			b, _ := os.ReadFile(name)
			var c int
			if n, _ := fmt.Sscan(string(b), &c); n == 1 {
				return c
			}
		}
	}
	t.Fatal("no worker was started")
	return 0
}
