package retention

import (
	"context"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/wal"
)

// Anchors finds the restore points of runs whose snapshots are in a store, for Options: a run's anchors, the newest first, each
// with its blob read from end to end, until as many are good as can matter.
func Anchors(ctx context.Context, store anchor.BlobStore) func(r *wal.Reader) ([]RestorePoint, error) {
	return func(r *wal.Reader) (list []RestorePoint, err error) {
		good := 0
		for p, err := range anchor.DurablePoints(ctx, r, store) {
			if err != nil {
				return nil, err
			}
			list = append(list, RestorePoint{Seq: p.Anchor.Covers, Err: p.Err})
			if p.Err == nil {
				good++
			}
			if good == spares {
				break
			}
		}
		return list, nil
	}
}
