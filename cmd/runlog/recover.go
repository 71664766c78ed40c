package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// decision is what recovery makes of a run.
type decision string

const (
	decidedEnded      decision = "ended"      // it had written RunEnded: only its seal is missing
	decidedCrashed    decision = "crashed"    // its process died
	decidedQuarantine decision = "quarantine" // acknowledged data is damaged
	decidedNothing    decision = "nothing"    // it is sealed, or quarantined, already
	decidedMended     decision = "mended"     // it is sealed; what is made of its segments was missing, damaged or of an earlier version
	decidedLive       decision = "live"       // a process holds the instance
	decidedUnborn     decision = "unborn"     // it died before it had a file that tells anything
	undecided         decision = "undecided"  // it could not be looked at, or not be finished
)

// recoveryJSON is a run in recover --json.
type recoveryJSON struct {
	Record       string        `json:"record"` // "recovery"
	Dir          string        `json:"dir"`
	Run          string        `json:"run"`
	DryRun       bool          `json:"dry_run"`
	Decision     decision      `json:"decision"`
	Status       runlog.Status `json:"status,omitempty"` // afterwards
	LastSeq      uint64        `json:"last_seq"`
	DroppedBytes int64         `json:"dropped_bytes"`
	File         string        `json:"file,omitempty"`
	Offset       *int64        `json:"offset,omitempty"`
	FirstBad     uint64        `json:"first_bad_seq,omitempty"`
	LastBad      uint64        `json:"last_bad_seq,omitempty"`
	Rewritten    []string      `json:"rewritten,omitempty"`
	Detail       string        `json:"detail,omitempty"`
}

func (a *app) recoverCmd() *cobra.Command {
	dry := false
	cmd := &cobra.Command{
		Use: "recover PATH", Short: "Bring runs whose process died to their end, as the engine's next start would",
		Long: `recover decides how each run that is not sealed has ended, and seals it: a torn tail, of which nothing proves that it was
acknowledged, is cut off and counted; index, footer and manifest are written. A run whose acknowledged data is damaged is quarantined: its
segments stay as they are. PATH is a run's directory, or an instance's or the base folder. The engine does the same by itself when it
starts; recover is for whoever wants to know, or wants it done, before. It takes the instance's lock: an instance that a process holds is
left alone.

A sealed run that is named itself gets back what is made of its segments, if that is missing, damaged or of an earlier version: indexes,
filters and the manifest. All of these are read for it, and for each index that is written its whole segment.

--dry-run says what would be done, and changes nothing. It takes no lock and works beside the engine and on read-only media.

Exit codes: 0 fine; 1 a run is, or would be, quarantined; 2 usage, the instance is held, or something could not be decided.`,
		Example: `  runlog recover runs --dry-run
  runlog recover runs/demo
  runlog recover runs --dry-run --json | jq -r 'select(.dropped_bytes > 0) | .dir'`,
		Args: exactly("PATH"),
		RunE: func(_ *cobra.Command, args []string) error {
			dirs, err := a.unsealed(args[0])
			if dry {
				for _, dir := range dirs {
					r, ferr := foresee(dir, false)
					if r.settled() {
						r, ferr = mend(r)
					}
					err = errors.Join(err, a.printRecovery(r, ferr))
				}
				return err
			}
			return errors.Join(err, a.recoverAll(dirs))
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and change nothing")
	return cmd
}

// unsealed lists the runs below path that are not sealed, and those that are quarantined, since they are bad news; a run
// that is named itself is always listed.
func (a *app) unsealed(path string) ([]string, error) {
	kind, err := classify(path)
	switch {
	case err != nil:
		return nil, err
	case kind == isRun:
		return []string{path}, nil
	case kind != isInst && kind != isBase:
		if kind == isEmpty && manifest.ValidRunID(filepath.Base(path)) {
			return []string{path}, nil
		}
		return nil, notRun(path, kind)
	}
	all, err := runsBelow(path, kind)
	var dirs []string
	for _, dir := range all {
		if m, _, merr := manifest.Read(vfs.OS, dir); quarantined(dir) || merr != nil || !m.Status.Sealed() {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 && err == nil {
		a.note("%s: nothing to recover: %s, all sealed", path, number(len(all), "run", "runs"))
	}
	return dirs, err
}

func quarantined(dir string) bool {
	_, is, _ := manifest.ReadQuarantine(vfs.OS, dir)
	return is
}

// foresee says what recovery would make of a run, by reading alone. mine: this process holds the instance.
func foresee(dir string, mine bool) (recoveryJSON, error) {
	r := recoveryJSON{Record: "recovery", Dir: dir, Run: filepath.Base(dir), DryRun: true, Decision: undecided}
	m, _, err := manifest.Read(vfs.OS, dir)
	if errors.Is(err, fs.ErrNotExist) && unborn(dir) {
		r.Decision = decidedUnborn
		return r, nil
	}
	if err == nil && !mine && live(dir, m) {
		r.Decision, r.Status, r.Detail = decidedLive, m.Status, "a process holds the instance and is writing it"
		return r, nil
	}
	rd, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err != nil {
		r.Detail = err.Error()
		return r, err
	}
	defer rd.Close()
	r.Run, r.LastSeq, r.Status = rd.Manifest().Run, rd.LastSeq(), rd.Status()
	damage := rd.Damage()
	var at *runlog.Error
	switch {
	case r.Status == runlog.Quarantined:
		r.Decision, r.Detail = decidedNothing, "it is quarantined"
		if q, _, err := manifest.ReadQuarantine(vfs.OS, dir); err == nil {
			r.Detail += ": " + q.Reason
		}
	case r.Status.Sealed():
		r.Decision, r.DroppedBytes = decidedNothing, rd.DroppedBytes()
	case errors.As(damage, &at):
		r.Decision, r.Status, r.Detail = decidedQuarantine, runlog.Quarantined, damage.Error()
		r.locate(at)
	case damage != nil:
		r.Detail = damage.Error()
		return r, damage
	default:
		r.Decision, r.Status, r.DroppedBytes = decidedCrashed, runlog.CrashedRecovered, rd.DroppedBytes()
		if r.LastSeq > 0 {
			v, err := rd.Get(r.LastSeq, nil)
			if err != nil {
				r.Decision, r.Status, r.Detail = undecided, "", err.Error()
				return r, err
			}
			if v.Topic() == entry.TopicEnded && v.Type() == entry.TypeEnded {
				r.Decision, r.Status = decidedEnded, runlog.Ended
			}
		}
		if r.DroppedBytes > 0 {
			if file, off, ok := logEnd(dir); ok {
				r.File, r.Offset = file, &off
			}
		}
	}
	return r, nil
}

// settled reports whether a run has come to its end, and a good one.
func (r *recoveryJSON) settled() bool {
	return r.Decision == decidedNothing && r.Status.Sealed() && r.Status != runlog.Quarantined
}

// locate takes file, offset and seqs from an error.
func (r *recoveryJSON) locate(e *runlog.Error) {
	r.File, r.FirstBad, r.LastBad = filepath.Base(e.Path), e.FirstSeq, e.LastSeq
	if e.Offset >= 0 {
		r.Offset = &e.Offset
	}
}

// unborn reports whether a folder without a manifest is what an engine leaves that dies before its run has begun: at
// most a first segment with nothing behind its header, and unfinished files. The engine's next start removes it.
func unborn(dir string) bool {
	names, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range names {
		n, isSegment := segment.ParseFileName(e.Name())
		if strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if !isSegment || n != 1 || !nothingIn(filepath.Join(dir, e.Name())) {
			return false
		}
	}
	return true
}

// nothingIn reports whether all bytes behind a segment's header are zero.
func nothingIn(path string) bool {
	f, err := vfs.OS.OpenRead(path)
	if err != nil {
		return false
	}
	defer f.Close()
	off := int64(segment.BlockSize)
	if h, err := segment.ReadHeader(f, path); err == nil {
		off = h.Size
	}
	for b := make([]byte, 1<<20); ; {
		n, err := f.ReadAt(b, off)
		if len(bytes.Trim(b[:n], "\x00")) > 0 {
			return false
		}
		if err != nil {
			return err == io.EOF
		}
		off += int64(n)
	}
}

// logEnd finds where the last whole batch of a run that is not sealed ends: in the newest segment that has a start
// frame and no footer.
func logEnd(dir string) (file string, off int64, ok bool) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return "", 0, false
	}
	for _, e := range names {
		if _, is := segment.ParseFileName(e.Name()); !is {
			continue
		}
		if end, started := segmentEnd(filepath.Join(dir, e.Name())); started {
			file, off, ok = e.Name(), end, true
		}
	}
	return file, off, ok
}

// segmentEnd is where the last whole batch of a segment without a footer ends.
func segmentEnd(path string) (end int64, started bool) {
	f, err := vfs.OS.OpenRead(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	h, err := segment.ReadHeader(f, path)
	if err != nil {
		return 0, false
	}
	buf := make([]byte, 1<<20)
	n, _ := f.ReadAt(buf[:segment.StartSize], h.Size)
	st, ok := segment.DecodeStart(buf[:n], h.Salt, h.Size)
	if !ok || st.Detached {
		return 0, false
	}
	end, chain := h.Size, st.Prev
	for {
		n, err := f.ReadAt(buf, end)
		if err != nil && err != io.EOF {
			return end, true
		}
		b, berr := segment.ReadBatch(buf[:n], h.Salt, end, chain)
		switch {
		case segment.IsShort(berr) && n == len(buf):
			buf = make([]byte, 2*len(buf))
			continue
		case berr != nil:
			return end, true
		}
		end, chain = b.Commit.End(), b.Next
	}
}

// recoverAll recovers the runs, instance by instance, under the instance's lock.
func (a *app) recoverAll(dirs []string) (failed error) {
	for len(dirs) > 0 {
		inst := filepath.Dir(filepath.Clean(dirs[0]))
		n := 1
		for n < len(dirs) && filepath.Dir(filepath.Clean(dirs[n])) == inst {
			n++
		}
		failed = errors.Join(failed, a.recoverInstance(inst, dirs[:n]))
		dirs = dirs[n:]
	}
	return failed
}

func (a *app) recoverInstance(inst string, dirs []string) (failed error) {
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { // which needs no lock
		if !quarantined(dir) {
			return false
		}
		r, err := foresee(dir, true)
		r.DryRun = false
		failed = errors.Join(failed, a.printRecovery(r, err))
		return true
	})
	if len(dirs) == 0 {
		return failed
	}
	for _, dir := range dirs {
		if !manifest.ValidRunID(filepath.Base(dir)) {
			return errors.Join(failed, fmt.Errorf("%s: the folder is not named as a run, so it may not be in an instance's folder: rename it, or use --dry-run", dir))
		}
	}
	lock, err := lockInstance(inst)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer lock.Close()
	for _, dir := range dirs {
		if a.ctx.Err() != nil {
			return errors.Join(failed, fmt.Errorf("interrupted: %w", a.ctx.Err()))
		}
		failed = errors.Join(failed, a.printRecovery(a.recoverRun(dir)))
	}
	return failed
}

// recoverRun does to one run what the engine's next start would do. The caller holds the instance's lock.
func (a *app) recoverRun(dir string) (recoveryJSON, error) {
	before, _ := foresee(dir, true) // tells what recovery does not: where
	r := recoveryJSON{Record: "recovery", Dir: dir, Run: filepath.Base(dir), Decision: before.Decision}
	if before.Decision == decidedUnborn || before.Decision == decidedNothing {
		before.DryRun = false
		if before.settled() {
			return mend(before)
		}
		return before, nil
	}
	rec, err := wal.Recover(vfs.OS, dir, time.Now().UnixNano())
	if err != nil {
		r.Decision, r.Detail = undecided, err.Error()
		return r, err
	}
	r.Status, r.LastSeq, r.DroppedBytes = rec.Status, rec.LastSeq, rec.DroppedBytes
	var at *runlog.Error
	switch {
	case rec.Damage != nil:
		r.Decision, r.Detail = decidedQuarantine, rec.Damage.Error()
		if errors.As(rec.Damage, &at) {
			r.locate(at)
		}
	case rec.Status == runlog.Ended:
		r.Decision = decidedEnded
	default:
		r.Decision = decidedCrashed
	}
	if r.DroppedBytes > 0 {
		r.File, r.Offset = before.File, before.Offset
	}
	return r, nil
}

// printRecovery prints one run's line, and returns what kept it from being decided.
func (a *app) printRecovery(r recoveryJSON, err error) error {
	if r.Decision == decidedQuarantine || r.Decision == decidedNothing && r.Status == runlog.Quarantined {
		a.found = true
	}
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	would := ""
	if r.DryRun {
		would = "would be "
	}
	s := ""
	switch r.Decision {
	case decidedEnded:
		s = would + "sealed as Ended: its process had closed it"
	case decidedCrashed:
		s = would + "sealed as CrashedRecovered: its process died"
	case decidedQuarantine:
		s = would + "QUARANTINED: " + r.Detail
	case decidedNothing:
		s = "nothing to do: " + string(r.Status)
		if r.Detail != "" {
			s = "nothing to do: " + r.Detail
		}
	case decidedMended:
		s = string(r.Status) + "; " + would + "written anew: " + r.rewritten()
	case decidedLive:
		s = "skipped: " + r.Detail
	case decidedUnborn:
		s = "died before it began, nothing to recover: the engine's next start removes the folder"
	case undecided:
		s = "UNDECIDED"
		if r.Status.Sealed() { // it is what is made of its segments that could not be written
			s = string(r.Status) + "; NOT ALL COULD BE WRITTEN ANEW"
			if len(r.Rewritten) > 0 {
				s += ", but " + r.rewritten()
			}
		}
	}
	if r.Decision == decidedEnded || r.Decision == decidedCrashed {
		s += fmt.Sprintf("; last seq %s", count(r.LastSeq))
		switch {
		case r.DroppedBytes == 0:
			s += ", no torn tail"
		case r.Offset != nil:
			s += fmt.Sprintf(", torn tail of %s bytes behind %s offset %d, of which nothing proves that it was acknowledged", count(r.DroppedBytes), r.File, *r.Offset)
		default:
			s += fmt.Sprintf(", torn tail of %s bytes, of which nothing proves that it was acknowledged", count(r.DroppedBytes))
		}
	}
	a.out.line("%s: %s", r.Dir, printable(s, -1))
	return err
}
