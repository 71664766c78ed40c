// Package bench measures runlog: one file for each question, every figure beside the floor or the clock that it has to
// be compared with. It holds tests only; bench/peers, a module of its own, does the same to other stores.
//
//	go test -bench . ./bench                          # up to 1 M entries, some minutes
//	go test -bench 'Get|Lookup' ./bench -large        # up to 4 M entries; OpenAfterCrash 40 M
//	BENCH_DIR=/mnt/disk go test -bench . ./bench      # on another disk
//
// The floor is the same bytes, moved by a bare loop in turns with the work, and off the clock: x_floor is how many times
// the floor's time an operation takes, so 1 is the floor, and less is better. Rows named Floor and Clock show floors by
// themselves. Where latency is the point, percentiles and the maximum are reported, and paced rows time each operation from
// its intended start.
//
// Files are made under BENCH_DIR, or else where temporary files go: a figure from a tmpfs says nothing about syncs.
// Stall thresholds are off, since a noisy machine could halt a run; otherwise options are the defaults, and each commit
// is synced. Runs never hold more than entryLimit entries: a longer measurement goes on in a fresh run, with the clock
// stopped in between.
package bench
