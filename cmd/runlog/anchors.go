package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/vfs"
)

// anchorJSON is a line of anchors --json.
type anchorJSON struct {
	Covers uint64 `json:"covers"`
	Taken  int64  `json:"taken"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Ref    string `json:"ref"`
	Blob   string `json:"blob,omitempty"`
	Error  string `json:"error,omitempty"`
}

// What is known of a blob.
const (
	blobGood    = "good"
	blobMissing = "missing"
	blobBad     = "bad"
)

func (a *app) anchorsCmd() *cobra.Command {
	var blobs string
	cmd := &cobra.Command{
		Use: "anchors RUN", Short: "List a run's snapshot anchors, the newest first",
		Long: `anchors lists the snapshots that the engine has taken of its state: which seq each covers, where it is, and its SHA-256. With
--blobs each snapshot in that folder is read and compared with what the log says of it; a restart uses the newest good one.`,
		Example: "  runlog anchors runs/demo/2026*\n  runlog anchors runs/demo/2026* --blobs runs/demo/snapshots --json",
		Args:    exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withRun(args[0], func(r *runlog.Reader) error { return a.anchors(r, blobs) })
		},
	}
	cmd.Flags().StringVar(&blobs, "blobs", "", "`folder` of the snapshots, to check them")
	return cmd
}

func (a *app) anchors(r *runlog.Reader, blobs string) error {
	store, err := openStore(blobs)
	if err != nil {
		return err
	}
	t := table{right: map[int]bool{0: true, 2: true}}
	t.add("COVERS", "TAKEN", "SIZE", "BLOB", "REF")
	for an, err := range anchor.List(r) {
		if err != nil && !errors.Is(err, anchor.ErrMalformed) {
			if !a.json {
				t.print(a.out)
			}
			return err
		}
		if err := a.anchor(an, err, store, &t); err != nil {
			return err
		}
	}
	if !a.json {
		t.print(a.out)
	}
	return nil
}

// openStore opens the folder of --blobs for reading; "": there is none.
func openStore(dir string) (anchor.BlobStore, error) {
	if dir == "" {
		return nil, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: not a folder", dir)
	}
	return anchor.OpenDirStore(vfs.OS, dir, nil), nil
}

// anchor shows one; err is why it cannot be read.
func (a *app) anchor(an anchor.Anchor, err error, store anchor.BlobStore, t *table) error {
	j := anchorJSON{Covers: an.Covers, Taken: an.Taken, Size: an.Size, SHA256: hex.EncodeToString(an.SHA256[:]), Ref: an.Ref}
	if err == nil && store != nil {
		err = anchor.Check(a.ctx, store, an)
		if cerr := a.ctx.Err(); cerr != nil {
			return cerr
		}
		j.Blob = blobState(err)
	}
	if err != nil {
		a.found = true
		j.Error = err.Error()
		a.warn(err)
	}
	if a.json {
		return a.printJSON(j)
	}
	if an.Covers == 0 {
		t.add("-", "-", "-", "-", "cannot be read")
		return nil
	}
	blob := j.Blob
	if blob == "" {
		blob = "-"
	}
	t.add(count(an.Covers), formatTime(an.Taken), size(an.Size), blob, printable(an.Ref, -1))
	return nil
}

func blobState(err error) string {
	switch {
	case err == nil:
		return blobGood
	case errors.Is(err, fs.ErrNotExist):
		return blobMissing
	}
	return blobBad
}

// lastAnchor counts a run's anchors and returns the newest that can be read.
func lastAnchor(r *runlog.Reader) (n int, last *anchorInfo) {
	for an, err := range anchor.List(r) {
		if err != nil && !errors.Is(err, anchor.ErrMalformed) {
			break // damage, which info shows anyway
		}
		if n++; err == nil && last == nil {
			last = &anchorInfo{Covers: an.Covers, Taken: an.Taken}
		}
	}
	return n, last
}

// anchorInfo is an anchor in info --json.
type anchorInfo struct {
	Covers uint64 `json:"covers"`
	Taken  int64  `json:"taken"`
}
