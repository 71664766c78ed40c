package matrix

// Row is one row of the fault matrix.
type Row struct {
	ID      string
	Fault   string
	Promise string
	How     string
	CI      int64 // cases in one run that guards main
	Taste   int64 // the share of that in a plain test run is one of so many; 0: 20
	Fixed   bool  // the long form has the same cases
}

// taste is the number of cases in a plain test run. The race detector makes each several times as dear.
func (r *Row) taste() int64 {
	n := r.Taste
	if n == 0 {
		n = 20
	}
	if raceEnabled {
		n *= 5
	}
	return max(r.CI/n, 1)
}

const prefix = "acknowledged prefix"

// Rows is the matrix. Every row has a test that calls Run with its id.
var Rows = []Row{
	{ID: "torn", Fault: "a write torn at every byte", Promise: prefix, How: "simulated, exhaustive", CI: 250_000, Taste: 40},
	{ID: "subsets", Fault: "any subset of unsynced blocks lost, 512 B and 4 KiB", Promise: prefix, How: "simulated, exhaustive up to 12 blocks, then by chance", CI: 300_000, Taste: 40},
	{ID: "garbage", Fault: "unsynced blocks reordered, or left as garbage", Promise: prefix, How: "simulated", CI: 200_000, Taste: 40},
	{ID: "power", Fault: "power cut at every operation of a load, and again inside the recovery", Promise: prefix, How: "simulated, all operations", CI: 20_000},
	{ID: "names", Fault: "power cut around create, rename and directory sync", Promise: "old or new state, never neither", How: "simulated, all points", CI: 10_000},
	{ID: "anchor", Fault: "power cut at every operation of taking a snapshot", Promise: "an anchor with its blob, or none; an acknowledged one; the same state replayed", How: "simulated, all operations", CI: 20_000},
	{ID: "errno", Fault: "the Nth operation fails, once and for ever, with each errno", Promise: "typed halt, no false acknowledgement", How: "simulated, every operation", CI: 50_000, Taste: 40},
	{ID: "sync-once", Fault: "a sync fails once, then \"succeeds\"", Promise: "halt for good; recovery trusts the disk, not the page cache", How: "simulated", CI: 5_000},
	{ID: "full", Fault: "disk full, file too big, short write", Promise: "halt, \"disk full\" recorded, clean reopening", How: "simulated", CI: 20_000, Taste: 40},
	{ID: "flip", Fault: "a bit flipped anywhere: header, body, commit, footer, index, filter, manifest", Promise: "found, or rebuilt; never wrong data", How: "simulated, every bit", CI: 300_000},
	{ID: "cut", Fault: "a file truncated at every length, or its tail zeroed", Promise: "sealed: an error; active: acknowledged prefix or an error", How: "simulated, every length", CI: 100_000},
	{ID: "shuffle", Fault: "segments missing, duplicated, renamed, swapped, the newest included", Promise: "an error that names the segment", How: "simulated, all pairs", CI: 5_000},
	{ID: "swap", Fault: "power cut at every operation of compressing a run and of going back, and again in the pass that ends it; a disk that writes something else", Promise: "every entry, in one form or the other", How: "simulated, all operations, 512 B and 4 KiB", CI: 10_000},
	{ID: "compressing", Fault: "power cut at every operation of a load whose sealed segments are compressed", Promise: prefix, How: "simulated, all operations", CI: 10_000},
	{ID: "packed", Fault: "a bit flipped anywhere in a compressed segment, or the file cut at every length", Promise: "found; never wrong data; the error names what is lost", How: "simulated, every bit of bytes all over the files", CI: 10_000},
	{ID: "prepared", Fault: "power cut at every operation of a load whose segments are only reserved, or not even that", Promise: prefix, How: "simulated, all operations", CI: 6_000},
	{ID: "prepared-full", Fault: "disk full under such a load", Promise: "halt; recorded, and never in a commit, where space is reserved; clean reopening", How: "simulated", CI: 4_000},
	{ID: "stale", Fault: "space that was reserved and never written holds garbage after a power cut", Promise: prefix + "; never damage", How: "simulated, all operations", CI: 6_000},
	{ID: "clock", Fault: "the clock jumps and runs backwards", Promise: "order by seq only", How: "injected clock", CI: 5_000},
	{ID: "steps", Fault: "an unlucky interleaving of submit, commit, rotation, sealing, reading and crash", Promise: prefix, How: "simulated, seeded scheduler, replayed byte for byte; cases are runs", CI: 6_000},
	{ID: "retention", Fault: "power cut at every operation of a retention, and again inside the boot after it", Promise: "what the plan keeps is whole, the rest is whole or gone; the next one ends it", How: "simulated, all operations", CI: 1_000},
	{ID: "markers", Fault: "power cut in a flood of stream markers", Promise: "a prefix of them; never more than was seen; what was dropped shows", How: "simulated, stepped writer", CI: 2_000},
	{ID: "stall", Fault: "the disk stalls", Promise: "a warning, then a halt within its bound; nothing acknowledged", How: "simulated, fake time", CI: 2_000},
	{ID: "differ", Fault: "hostile bytes, read by a second, slow decoder made from the format pages", Promise: "the same answer from both", How: "differential", CI: 10_000}, // 20 s on 2 cores: a case looks up every key and runs verify
	{ID: "differ-packed", Fault: "hostile bytes in compressed segments, read by the second decoder", Promise: "the same answer from both", How: "differential", CI: 2_000},
	{ID: "swap-readers", Fault: "readers beside compressing, and beside going back", Promise: "no torn, missing or repeated entry", How: "real and in memory; cases are entries read", CI: 200_000},
	{ID: "readers", Fault: "readers beside rotation and sealing", Promise: "no torn, missing or repeated entry", How: "real, race detector on in `make race`; cases are entries read", CI: 1_000_000},
	{ID: "kill", Fault: "SIGKILL at a random instant", Promise: "acknowledged is a part of what is recovered", How: "real, child processes", CI: 600, Taste: 6},
	{ID: "syscalls", Fault: "SIGKILL at each system call of a rotation", Promise: prefix, How: "real, strace; every fourth case lets the call fail instead", CI: 1_100, Taste: 50},
	{ID: "kernel", Fault: "power cut below ext4 and XFS, any subset of unsynced blocks", Promise: prefix, How: "real, FUSE disk under a loop device", CI: 1_000, Taste: 50},
	{ID: "eio", Fault: "one write-back fails on ext4 and XFS: the first sync says so, the second does not", Promise: "halt for good; recovery trusts the disk, not the page cache", How: "real, FUSE disk under a loop device", CI: 20},
	{ID: "enospc", Fault: "a tmpfs that is full, a file size limit", Promise: "halt, \"disk full\" recorded, clean reopening", How: "real", CI: 20},
	{ID: "slow-disk", Fault: "a disk that stops answering for a while", Promise: "a warning, then a halt within its bound", How: "real, FUSE disk under a loop device", CI: 10},
	{ID: "sigbus", Fault: "a mapped file cut short under a reader", Promise: "a typed error, the process lives", How: "real, child process, every way to read", CI: 50},
	{ID: "openers", Fault: "two openers; the lock after SIGKILL", Promise: "the second is refused at once; the lock is free again", How: "real, two processes", CI: 50},
	{ID: "memory", Fault: "memory cap, killed for want of memory", Promise: "as SIGKILL; memory is bounded", How: "real, cgroup or limit on anonymous memory; a long log recovered and read in 64 MiB", CI: 10, Taste: 5},
	{ID: "mutants", Fault: "the engine itself is broken on purpose", Promise: "every mutant is caught", How: "patched builds, each against its row", CI: 40, Taste: 13, Fixed: true},
}

// Find returns the row with this id, nil if there is none.
func Find(id string) *Row {
	for i := range Rows {
		if Rows[i].ID == id {
			return &Rows[i]
		}
	}
	return nil
}
