package runlog_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog"
)

// crashedOnDisk leaves a crashed run of two entries on the real file system.
func crashedOnDisk(t *testing.T) (runlog.Options, *runlog.Run) {
	t.Helper()
	o := runlog.Options{Dir: t.TempDir(), Instance: instance, HaltAfter: off}
	r, err := runlog.Open(t.Context(), o)
	must(t, err)
	_, err = r.Append(t.Context(), order(1))
	must(t, err)
	must(t, r.Abandon(t.Context(), nil))
	return o, r
}

// moved puts the run's folder somewhere else, with a link in its place, and returns where it is.
func moved(t *testing.T, r *runlog.Run) string {
	t.Helper()
	away := filepath.Join(t.TempDir(), r.ID())
	must(t, os.Rename(r.Dir(), away))
	must(t, os.Symlink(away, r.Dir()))
	return away
}

func TestARunBehindALinkIsTheParent(t *testing.T) {
	o, r := crashedOnDisk(t)
	moved(t, r)
	list, err := runlog.List(o.Dir, runlog.ReaderOptions{})
	if err != nil || len(list) != 1 || list[0].Run != r.ID() || list[0].Err != nil {
		t.Errorf("listed: %+v, %v", list, err)
	}
	next, err := runlog.Open(t.Context(), o)
	must(t, err)
	if next.Manifest().Parent != r.ID() {
		t.Errorf("parent %q, predecessors %v", next.Manifest().Parent, next.Predecessors())
	}
	parents, err := next.Parents()
	if err != nil || len(parents) != 1 || parents[0].LastSeq() != 2 {
		t.Errorf("parents: %v, %v", parents, err)
	}
	must(t, next.Close(t.Context()))
}

func TestALinkThatLeadsNowhereStopsTheBoot(t *testing.T) {
	for name, lose := range map[string]func(away string){
		"gone":  func(away string) { must(t, os.Rename(away, away+".elsewhere")) },
		"empty": func(away string) { must(t, os.Rename(away, away+".elsewhere")); must(t, os.Mkdir(away, 0o755)) }, // not mounted
	} {
		o, r := crashedOnDisk(t)
		away := moved(t, r)
		lose(away)
		var undecided *runlog.UndecidedError
		if _, err := runlog.Open(t.Context(), o); !errors.As(err, &undecided) || undecided.Run != r.ID() {
			t.Fatalf("%s: %v", name, err)
		}
		list, err := runlog.List(o.Dir, runlog.ReaderOptions{})
		if err != nil || len(list) != 1 || list[0].Run != r.ID() || !errors.Is(list[0].Err, fs.ErrNotExist) {
			t.Errorf("%s: listed: %+v, %v", name, list, err)
		}
		_ = os.Remove(away)
		must(t, os.Rename(away+".elsewhere", away))
		next, err := runlog.Open(t.Context(), o)
		must(t, err)
		if next.Manifest().Parent != r.ID() {
			t.Errorf("%s: back again: parent %q", name, next.Manifest().Parent)
		}
		must(t, next.Close(t.Context()))
	}
}

func TestAFileWithARunsNameIsReportedAndStopsNoBoot(t *testing.T) {
	o, r := crashedOnDisk(t)
	must(t, os.RemoveAll(r.Dir()))
	must(t, os.WriteFile(r.Dir(), []byte("not a folder"), 0o600))
	next, err := runlog.Open(t.Context(), o)
	must(t, err)
	p := next.Predecessors()
	if len(p) != 1 || p[0].Run != r.ID() || !errors.Is(p[0].Err, runlog.ErrNotRun) || next.Manifest().Parent != "" {
		t.Errorf("predecessors: %+v", p)
	}
	must(t, next.Close(t.Context()))
	list, err := runlog.List(o.Dir, runlog.ReaderOptions{})
	if err != nil || len(list) != 2 || !errors.Is(list[0].Err, runlog.ErrNotRun) {
		t.Errorf("listed: %+v, %v", list, err)
	}
}

func TestListFollowsAnInstanceThatIsALink(t *testing.T) {
	o, r := crashedOnDisk(t)
	away := filepath.Join(t.TempDir(), instance)
	must(t, os.Rename(filepath.Dir(r.Dir()), away))
	must(t, os.Symlink(away, filepath.Dir(r.Dir())))
	must(t, os.WriteFile(filepath.Join(o.Dir, "notes"), nil, 0o600))
	list, err := runlog.List(o.Dir, runlog.ReaderOptions{})
	if err != nil || len(list) != 1 || list[0].Run != r.ID() || list[0].Instance != instance {
		t.Errorf("listed: %+v, %v", list, err)
	}
	must(t, os.Rename(away, away+".elsewhere"))
	list, err = runlog.List(o.Dir, runlog.ReaderOptions{})
	if err != nil || len(list) != 1 || list[0].Run != "" || list[0].Instance != instance || !errors.Is(list[0].Err, fs.ErrNotExist) {
		t.Errorf("listed: %+v, %v", list, err)
	}
}
