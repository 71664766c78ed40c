// Package bench measures runlog: one file for each question, every figure beside the floor or the clock that it has to
// be compared with. It holds tests only.
//
//	go test -bench . ./bench                          # up to 1 M entries, a few minutes
//	go test -bench 'Get|Lookup' ./bench -large        # up to 4 M entries
//	BENCH_DIR=/mnt/disk go test -bench . ./bench      # on another disk
//
// Files are made under BENCH_DIR, or else where temporary files go: a figure from a tmpfs says nothing about syncs.
// Stall thresholds are off, since a noisy machine could halt a run; otherwise options are the defaults, and each commit
// is synced. Runs never hold more than entryLimit entries: a longer measurement goes on in a fresh run, with the clock
// stopped in between.
package bench
