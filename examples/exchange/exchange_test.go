package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// asProgram makes the test binary be the program: the demonstration starts itself as a child.
const asProgram = "RUNLOG_EXCHANGE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program runs the program as a process of its own.
func program(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := programCommand(t.Context(), t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func programCommand(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+t.TempDir())
	return cmd
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func TestDemoSurvivesItsKills(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "folder")
	out, errs, code := program(t, "--orders", "40000", "--kills", "2", "--seed", "4", "--dir", dir, "--keep")
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{
		"no released message is missing from the log: yes", "state after recovery equals state without the crash: yes",
		"all runs verified: yes", "once and in order: yes", "the log alone equals the engine's: yes",
		"each state hash that was recorded on the way equals the replayed state: yes", "SubmitOrder", "kept in " + dir,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report does not say %q:\n%s", want, out)
		}
	}
	if errs != "" {
		t.Errorf("stderr is no terminal, and has %q", errs)
	}
	runs, err := runlog.List(dir, runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var statuses []runlog.Status
	for _, r := range runs {
		if r.Instance == instance {
			statuses = append(statuses, r.Status)
		}
	}
	if names := files(t, filepath.Join(dir, instance, snapshots)); len(names) == 0 {
		t.Error("no snapshot was kept")
	}
	if len(statuses) != 3 || statuses[0] != runlog.CrashedRecovered || statuses[2] != runlog.Ended {
		t.Errorf("statuses of the runs: %v", statuses)
	}
	if _, errs, code := program(t, "--dir", dir); code != 2 || !strings.Contains(errs, "exists already") {
		t.Errorf("a second time in the same folder: exit code %d, %s", code, errs)
	}
}

func TestDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	out, errs, code := program(t, "demo", "--orders", "5000", "--kills", "0", "--dir", filepath.Join(base, "a", "b"))
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	if left := files(t, base); len(left) != 0 {
		t.Errorf("left in the folder: %v", left)
	}

	// Interrupted in the middle of its work.
	if err := os.WriteFile(filepath.Join(base, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := programCommand(t.Context(), t, "--orders", "100000000", "--dir", base)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); len(files(t, base)) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit code %d", code)
	}
	if left := files(t, base); len(left) != 1 || left[0] != "mine" {
		t.Errorf("left in the folder: %v", left)
	}
}

// killedRun starts a run of so many orders in dir, kills it on its way, and reports whether it was early enough: on a
// busy machine the process can have finished before this one is told that it has begun.
func killedRun(t *testing.T, dir, orders string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := programCommand(ctx, t, "run", "--dir", dir, "--orders", orders, "--seed", "9", "--feed")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := newFeedReader(pipe)
	for {
		kind, body, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if orders, _ := binary.Uvarint(body); kind == frameProgress && orders > 2_000 {
			break
		}
	}
	cancel() // SIGKILL
	_, _ = io.Copy(io.Discard, pipe)
	_ = cmd.Wait()
	runs, err := runlog.List(dir, runlog.ReaderOptions{})
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	log, err := runlog.OpenReader(runs[0].Dir, runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for last, err := range log.Scan(runlog.ScanOptions{Reverse: true}) {
		if err != nil {
			t.Fatal(err)
		}
		return !last.IsLifecycle() // else the run was empty, or has ended; the manifest can lag behind
	}
	return false
}

func TestEngineByHandGoesOnWhereItWasKilled(t *testing.T) {
	t.Parallel()
	dir, orders := t.TempDir(), 10_000
	for !killedRun(t, dir, strconv.Itoa(orders)) {
		if orders *= 4; orders > 1_000_000 {
			t.Fatal("it cannot be killed on its way")
		}
		dir = t.TempDir()
	}
	args := []string{"--orders", strconv.Itoa(orders), "--seed", "9"}
	// A start that fails must not spoil the next one.
	if _, errs, code := program(t, "run", "--dir", dir, "--orders", "10000", "--seed", "10"); code != 2 ||
		!strings.Contains(errs, "seed") {
		t.Errorf("another seed: exit code %d, %s", code, errs)
	}
	state := regexp.MustCompile(`state [0-9a-f]{16}`)
	out, errs, code := program(t, append([]string{"run", "--dir", dir}, args...)...)
	if code != 0 || !strings.Contains(out, "before it: 1") {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	whole, errs, code := program(t, append([]string{"run", "--dir", t.TempDir()}, args...)...)
	if code != 0 || state.FindString(whole) == "" || state.FindString(whole) != state.FindString(out) {
		t.Fatalf("exit code %d\n%s%s%s", code, out, whole, errs)
	}
}

// recording makes a market-by-order file: add, fill and modify, modify, cancel of every order, and one clear.
func recording(orders int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{'D', 'B', 'N', 1}, 4)
	b = append(b, "meta"...)
	at := int64(1_700_000_000_000_000_000)
	add := func(id uint64, a flow.Action, side byte, size uint32) {
		at += 1000
		r := flow.Report{
			TsEvent: at, TsRecv: at + 500, OrderID: id, Price: int64(id) * 250_000_000, Size: size, Instrument: 3,
			Action: a, Side: side,
		}
		b, _ = r.AppendBinary(b) // never fails
	}
	add(0, flow.ActionClear, 'N', 0)
	for i := range orders {
		id, side := uint64(1000+i), "AB"[i%2]
		add(id, flow.ActionAdd, side, 9)
		if i == 7 {
			for range 332 {
				add(id, flow.ActionModify, side, 9)
			}
		}
		add(id, flow.ActionFill, side, 2)
		add(id, flow.ActionModify, side, 7)
		add(id+1_000_000, flow.ActionTrade, 'N', 2)
		if i%3 == 0 {
			add(id, flow.ActionCancel, side, 7)
		}
	}
	return b
}

func TestInputIsCapturedExactly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := recording(2000)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "in.dbn.zst")
	if err := os.WriteFile(path, w.EncodeAll(plain, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "runs")
	out, errs, code := program(t, "--input", path, "--dir", base, "--keep")
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{
		"venue_order_id=1007, 335 entries (335 in the input)", "counts equal the input's: yes",
		"histories equal the input's: yes (4,000 orders)",
		"run verified: yes", "book: 1,333 open orders; 0 reports",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report does not say %q:\n%s", want, out)
		}
	}
	runs, err := runlog.List(base, runlog.ReaderOptions{})
	if err != nil || len(runs) != 1 {
		t.Fatalf("%v, %v", runs, err)
	}
	r, err := runlog.OpenReader(runs[0].Dir, runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	records := uint64(len(plain)-12) / flow.RecordBytes
	if r.LastSeq() != records+2 {
		t.Errorf("%d entries for %d records", r.LastSeq(), records)
	}
	v, err := r.Get(3, nil)
	if err != nil || v.Topic() != engine.TopicReports || v.Type() != "ReportAdd" ||
		v.TsInit() != 1_700_000_000_000_002_000 {
		t.Errorf("seq 3: %v %s %d, %v", v.Topic(), v.Type(), v.TsInit(), err)
	}
	if v, err := r.Get(2, nil); err != nil || v.Type() != "ReportClear" || v.HasKey(2, "0") {
		t.Errorf("seq 2: %s, %v", v.Type(), err)
	}
}

func TestBrokenInputLeavesNoRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "in.dbn")
	whole := recording(50)
	if err := os.WriteFile(path, whole[:len(whole)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "runs")
	out, errs, code := program(t, "--input", path, "--dir", base, "--keep")
	if code != 1 || !strings.Contains(errs, "46 of 56 bytes") || !strings.Contains(errs, path) {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if _, err := runlog.List(base, runlog.ReaderOptions{}); err == nil {
		t.Error("half of an input became a run")
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	out, errs, code := program(t, "--help")
	if code != 0 || errs != "" || !strings.Contains(out, "-orders") || !strings.Contains(out, "Exit code") {
		t.Errorf("help: exit code %d\n%s%s", code, out, errs)
	}
	for _, args := range [][]string{
		{"--nope"}, {"extra"}, {"--orders", "0"}, {"--kills", "-1"}, {"run"}, {"--input", filepath.Join(t.TempDir(), "none")},
	} {
		out, errs, code := program(t, args...)
		if code != 2 || out != "" || errs == "" {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestFeedSurvivesBeingCutAnywhere(t *testing.T) {
	var whole bytes.Buffer
	w := &feedWriter{w: &whole}
	w.json(frameHello, hello{Runs: []string{"a"}})
	for i := range uint64(5) {
		w.message(engine.Message{Event: engine.Event{N: i + 1, Command: i}, Run: 0, Seq: 100 + i})
	}
	w.progress(5)
	if w.err != nil {
		t.Fatal(w.err)
	}
	prev := 0
	for n := range whole.Len() + 1 {
		s := &session{c: &config{}}
		f := newFeedReader(bytes.NewReader(whole.Bytes()[:n]))
		if err := s.listen(f, func(*hello) {}, func(uint64) {}, func() {}); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if len(s.messages) < prev {
			t.Fatalf("%d bytes: %d messages, %d from fewer bytes", n, len(s.messages), prev)
		}
		prev = len(s.messages)
	}
	if prev != 5 {
		t.Fatalf("%d messages", prev)
	}
}
