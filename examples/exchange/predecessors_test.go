package main

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

func TestEngineDoesNotTakeADamagedRunForAFirstStart(t *testing.T) {
	t.Parallel()
	dir, orders := t.TempDir(), 10_000
	for !killedRun(t, dir, strconv.Itoa(orders)) {
		if orders *= 4; orders > 1_000_000 {
			t.Fatal("it cannot be killed on its way")
		}
		dir = t.TempDir()
	}
	runs, err := runlog.List(dir, runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.WriteQuarantine(vfs.OS, runs[0].Dir, manifest.Quarantine{Reason: "a bit has flipped", Offset: -1}); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "--dir", dir, "--orders", strconv.Itoa(orders), "--seed", "9"}
	for range 2 { // a refused start must not make the next one forget
		out, errs, code := program(t, args...)
		if code != 1 || out != "" || !strings.Contains(errs, runs[0].Run) || !strings.Contains(errs, "a bit has flipped") {
			t.Fatalf("the engine started behind a damaged run: exit code %d\n%s%s", code, out, errs)
		}
	}
	for _, flags := range [][]string{{"--without", runs[0].Run}, nil} { // once it went on, the permission is not needed again
		if out, errs, code := program(t, append(args, flags...)...); code != 0 {
			t.Fatalf("%v: exit code %d\n%s%s", flags, code, out, errs)
		}
	}
}

func TestOnlyRunsThatMayHoldTheNewestStateAreLookedAt(t *testing.T) {
	bad := errors.New("damaged")
	run := func(id string, s runlog.Status, last uint64, origin string, err error) runlog.Predecessor {
		return runlog.Predecessor{Run: id, Status: s, LastSeq: last, Origin: origin, Err: err}
	}
	damaged := run("bad", runlog.Quarantined, 0, "", bad)
	const engine = manifest.OriginEngine
	for name, c := range map[string]struct {
		list   []runlog.Predecessor
		refuse bool
	}{
		"no run":               {nil, false},
		"a damaged one":        {[]runlog.Predecessor{damaged}, true},
		"behind it, an end":    {[]runlog.Predecessor{damaged, run("b", runlog.Ended, 2, engine, nil)}, false},
		"behind it, state":     {[]runlog.Predecessor{damaged, run("b", runlog.CrashedRecovered, 2, engine, nil)}, false},
		"behind it, a refusal": {[]runlog.Predecessor{damaged, run("b", runlog.CrashedRecovered, 1, engine, nil)}, true},
		"behind it, an import": {[]runlog.Predecessor{damaged, run("b", runlog.Ended, 9, manifest.OriginImport, nil)}, true},
		"before it, state":     {[]runlog.Predecessor{run("a", runlog.CrashedRecovered, 9, engine, nil), damaged}, true},
		"a damaged import":     {[]runlog.Predecessor{run("i", runlog.Quarantined, 9, manifest.OriginImport, bad)}, false},
	} {
		err := checkPredecessors(c.list, []string{"other"})
		if errors.Is(err, errUnusable) != c.refuse || errors.Is(err, bad) != c.refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkPredecessors([]runlog.Predecessor{damaged}, []string{"bad"}); err != nil {
		t.Errorf("given up by name: %v", err)
	}
}
