package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// mend puts back what a sealed run has besides its segments: indexes, filters, and a manifest that is lost.
func mend(r recoveryJSON) (recoveryJSON, error) {
	names, err := wal.Mend(vfs.OS, r.Dir, time.Now().UnixNano(), !r.DryRun)
	r.Rewritten = names
	switch {
	case err != nil:
		r.Decision, r.Detail = undecided, err.Error()
	case len(names) > 0:
		r.Decision = decidedMended
	}
	return r, err
}

// maxNamed bounds the files that a line names.
const maxNamed = 5

func (r *recoveryJSON) rewritten() string {
	names, more := r.Rewritten, ""
	if n := len(names) - maxNamed; n > 0 {
		names, more = names[:maxNamed], fmt.Sprintf(" and %s", number(n, "more file", "more files"))
	}
	return strings.Join(names, ", ") + more
}
