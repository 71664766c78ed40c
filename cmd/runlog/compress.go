package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// compressionJSON is a run in compress --json.
type compressionJSON struct {
	Record     string `json:"record"` // "compression"
	Dir        string `json:"dir"`
	Run        string `json:"run"`
	Segments   int    `json:"segments"`
	Compressed int    `json:"compressed"` // afterwards
	Changed    int    `json:"changed"`    // by this command
	Bytes      int64  `json:"bytes"`      // of all segment files, afterwards
	PlainBytes int64  `json:"plain_bytes"`
	Error      string `json:"error,omitempty"`
}

func (a *app) compressCmd() *cobra.Command {
	o := wal.CompressOptions{}
	codec, block := "", 0
	cmd := &cobra.Command{
		Use: "compress PATH", Short: "Compress the segments of sealed runs, or make them plain again",
		Long: `compress puts compressed segments in the place of plain ones: each is written aside, synced, read back from the disk and compared with
its SHA-256 before the plain file goes. Everything that reads a run reads both; digests, seqs and indexes stay what they are. PATH is a
run's directory, or an instance's or the base folder, for all sealed runs in it; others are skipped, with a note. A segment that would hardly
become smaller, or that is damaged, stays as it is. What an earlier pass has begun is ended. It takes the instance's lock: an instance that
a process holds is left alone.

--undo makes the segments plain again.

Exit codes: 0 fine; 1 a segment is damaged; 2 usage, the instance is held, or something could not be done.`,
		Example: `  runlog compress runs/demo
  runlog compress runs --codec s2 --keep-plain 4 --json | jq -r '[.dir, .plain_bytes / .bytes] | @tsv'
  runlog compress runs/demo/2026* --undo`,
		Args: exactly("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Codec, err = compressed.ParseCodec(codec); err != nil {
				o.Codec = wal.NoCodec
			}
			for _, flag := range []string{"codec", "level", "block", "keep-plain"} {
				if o.Undo && cmd.Flags().Changed(flag) {
					return fmt.Errorf("--undo makes all segments plain, so --%s means nothing", flag)
				}
			}
			if o.BlockBytes = block << 10; !o.Undo && o.Codec == wal.NoCodec {
				return fmt.Errorf("--codec %q: want zstd or s2", codec)
			}
			if err := o.Check(); err != nil {
				return err
			}
			dirs, err := a.compressible(args[0])
			return errors.Join(err, a.byInstance(dirs, func(dir string) error { return a.compress(dir, o) }))
		},
	}
	cmd.Flags().StringVar(&codec, "codec", "zstd", "zstd, which makes them smaller, or s2, which is faster to read")
	cmd.Flags().IntVar(&o.Level, "level", 0, "1 (fastest) to 4 for zstd, to 3 for s2; 0 is 1")
	cmd.Flags().IntVar(&block, "block", compressed.DefaultBlock>>10, "KiB that are compressed as one: 4 to 1024, a power of two")
	cmd.Flags().IntVar(&o.KeepPlain, "keep-plain", 0, "leave so many of each run's newest segments as they are")
	cmd.Flags().BoolVar(&o.Undo, "undo", false, "make the segments plain again")
	return cmd
}

// compressible lists the sealed runs below path; a run that is named itself is always listed.
func (a *app) compressible(path string) ([]string, error) {
	kind, err := classify(path)
	switch {
	case err != nil:
		return nil, err
	case kind == isRun:
		return []string{filepath.Clean(path)}, nil
	case kind != isInst && kind != isBase:
		return nil, notRun(path, kind)
	}
	all, err := runsBelow(path, kind)
	var dirs []string
	for _, dir := range all {
		m, _, merr := manifest.Read(vfs.OS, dir)
		_, quarantined, _ := manifest.ReadQuarantine(vfs.OS, dir)
		switch {
		case merr != nil:
			a.warn(merr)
		case quarantined:
			a.note("%s: skipped: it is quarantined", dir)
		case !m.Status.Sealed():
			a.note("%s: skipped: it is not sealed", dir)
		default:
			dirs = append(dirs, dir)
		}
	}
	return dirs, err
}

// byInstance does something to runs, instance by instance, under the instance's lock.
func (a *app) byInstance(dirs []string, do func(dir string) error) (failed error) {
	for len(dirs) > 0 {
		n := 1
		for n < len(dirs) && filepath.Dir(dirs[n]) == filepath.Dir(dirs[0]) {
			n++
		}
		failed = errors.Join(failed, a.inInstance(dirs[:n], do))
		dirs = dirs[n:]
	}
	return failed
}

func (a *app) inInstance(dirs []string, do func(dir string) error) (failed error) {
	abs, err := filepath.Abs(dirs[0])
	if err != nil {
		return err
	}
	if !manifest.ValidRunID(filepath.Base(abs)) {
		return fmt.Errorf("%s: the folder is not named as a run, so it may not be in an instance's folder: rename it", dirs[0])
	}
	lock, err := lockInstance(filepath.Dir(abs))
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, dir := range dirs {
		if err := a.ctx.Err(); err != nil {
			return errors.Join(failed, fmt.Errorf("interrupted: %w", err))
		}
		failed = errors.Join(failed, do(dir))
	}
	return failed
}

// compress converts one run and prints what it has come to. The caller holds the instance's lock.
func (a *app) compress(dir string, o wal.CompressOptions) error {
	r := compressionJSON{Record: "compression", Dir: dir, Run: filepath.Base(dir)}
	bar := a.newProgress()
	o.OnProgress = func(done, total int64) {
		bar.show(func() string { return fmt.Sprintf("%s: %s of %s", dir, size(done), size(total)) })
	}
	forms, err := wal.Compress(a.ctx, vfs.OS, dir, o)
	bar.end()
	for _, f := range forms {
		r.Segments++
		r.Bytes, r.PlainBytes = r.Bytes+f.DiskBytes, r.PlainBytes+f.PlainBytes
		if f.Codec != runlog.NoCodec {
			r.Compressed++
		}
		if f.Changed {
			r.Changed++
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	if len(forms) > 0 {
		a.out.line("%s: %s, %d compressed, %d changed: %s, %s uncompressed%s", dir, number(r.Segments, "segment", "segments"),
			r.Compressed, r.Changed, size(r.Bytes), size(r.PlainBytes), ratio(r.PlainBytes, r.Bytes))
	}
	return err
}

// ratio says how many times smaller something has become, if it has.
func ratio(plain, disk int64) string {
	if disk <= 0 || plain <= disk {
		return ""
	}
	return fmt.Sprintf(" (ratio %.2f)", float64(plain)/float64(disk))
}
