package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

const sigbusEnv = "RUNLOG_TEST_SIGBUS" // the run's folder, in the process whose mappings are cut

func TestMain(m *testing.M) {
	if dir := os.Getenv(sigbusEnv); dir != "" {
		if err := readLostMapping(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print("alive")
		os.Exit(0)
	}
	debug.SetGCPercent(400) // thousands of small worlds
	os.Exit(m.Run())
}

// readLostMapping maps the segment, lets it be cut short underneath, and reads in every way.
func readLostMapping(dir string) error {
	r, err := OpenReader(vfs.OS, dir)
	if err != nil {
		return err
	}
	last := r.LastSeq()
	path := filepath.Join(dir, segment.FileName(1))
	if _, err := r.Get(last, nil); err != nil { // maps segment and index
		return err
	}
	if err := os.Truncate(path, segment.BlockSize); err != nil {
		return err
	}
	scan := func(o ScanOptions) error {
		for _, err := range r.Scan(o) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	_, get := r.Get(last, nil)
	_, _, lookup := r.Lookup(entry.ClientOrderID, "O-1")
	var history error
	for _, err := range r.History(entry.ClientOrderID, "O-1") {
		history = err
	}
	for what, err := range map[string]error{
		"get": get, "lookup": lookup, "history": history,
		"scan": scan(ScanOptions{}), "scan backwards": scan(ScanOptions{Reverse: true}),
		"scan by time": scan(ScanOptions{Since: 1}), "scan from the middle": scan(ScanOptions{From: last / 2}),
	} {
		var fe *format.Error
		if !errors.Is(err, format.ErrMappingLost) || !errors.As(err, &fe) || fe.Path != path {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func TestAMappedFileCutShortIsAnErrorAndTheProcessLives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), runID)
	g := newRig(t, func(o *Options) {
		o.FS, o.Dir = realFS{vfs.OS}, dir
		o.SegmentBytes, o.FirstBytes = 1<<20, 1<<20
	}).fill(100, 3000)
	g.sealed()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sigbusEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasSuffix(out, []byte("alive")) {
		t.Fatalf("%v: %s", err, out)
	}
}

// realFS leaves out the folders that the rig makes on its disk in memory.
type realFS struct{ vfs.FS }

func (f realFS) MkdirAll(dir string) error {
	if dir == "/base/desk" {
		return nil
	}
	return f.FS.MkdirAll(dir)
}
