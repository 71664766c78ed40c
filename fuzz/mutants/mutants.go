// Package mutants breaks the engine on purpose, in ways in which logs are broken in real life, to see whether the fault
// matrix notices. A mutant lives in a patched copy of a source file that only this package's test builds, by way of the
// compiler's -overlay: the engine itself holds no trace of it. All mutants are in one build; the environment says
// which one is alive.
package mutants

// Mutant is one way to be broken.
type Mutant struct {
	Name string
	What string
	Row  string // the row of the fault matrix that must notice
}

// patch replaces the one place in a file of the engine where old stands. The new text asks mutant.On(name).
type patch struct{ file, old, new string }

// All lists the mutants.
var All = []Mutant{
	{"ack-before-sync", "the durable watermark moves before the sync", "power"},
	{"skip-sync", "no sync at all", "power"},
	{"retry-sync", "a failed sync is tried once more", "sync-once"},
	{"full-is-io", "a full disk is not told from any other error", "full"},
	{"ignore-write-error", "an error of a write is not looked at", "errno"},
	{"ack-one-too-many", "the durable watermark is one seq ahead", "power"},
	{"closing-commit-unsynced", "what follows a rotation is acknowledged before the closing commit is durable", "steps"},
	{"spare-unsynced", "a new segment's header is not synced", "power"},
	{"skip-dir-sync", "a new segment's name is not synced", "power"},
	{"cut-before-footer", "sealing cuts the file before the footer is durable", "power"},
	{"manifest-unsynced", "an atomic replacement renames before it syncs", "names"},
	{"trust-page-cache", "recovery believes what the page cache says", "sync-once"},
	{"doubt-everything", "recovery drops commits that nothing vouches for, even if they are whole", "kill"},
	{"accept-zeros", "zeros end the log, whatever stands behind them", "cut"},
	{"ignore-evidence", "a later commit is no proof that an earlier one was durable", "flip"},
	{"ignore-marks", "a sync mark is no proof", "flip"},
	{"shorten-on-damage", "damage is cut off like a torn tail", "flip"},
	{"skip-digest", "a commit's digest is not compared", "flip"},
	{"skip-frame-check", "a frame's checksum is not compared", "flip"},
	{"skip-index-check", "an index's checksums are not compared", "flip"},
	{"short-file-is-fine", "a segment that was cut short passes for a torn tail", "cut"},
	{"any-segment", "a segment's number and run are not compared", "shuffle"},
	{"any-index", "an index need not belong to its segment", "shuffle"},
	{"drop-salt", "checks know nothing of the segment that a frame is in", "differ"},
	{"publish-goes-back", "the time of publishing follows the clock backwards", "clock"},
	{"drop-before-name", "the plain file goes before the compressed one's name is synced", "swap"},
	{"swap-unverified", "a compressed file takes the plain one's place without being read back", "swap"},
	{"skip-block-check", "the check of a compressed block is not compared", "packed"},
	{"marker-drop-untold", "a marker record that is dropped leaves no gap", "markers"},
	{"marker-snapshot-early", "a snapshot of streams lacks those that came before its first part", "markers"},
	{"blob-unsynced", "a snapshot is renamed before it is synced", "anchor"},
	{"blob-name-unsynced", "a snapshot's name is not synced", "anchor"},
	{"anchor-first", "an anchor is recorded before its snapshot is stored", "anchor"},
	{"reserve-nothing", "the space of a segment is not reserved", "prepared-full"},
	{"no-planned-length", "a segment whose space is not reserved is not given its length", "prepared"},
	{"a-spare-is-zeros", "a spare that does not hold zeros passes for a used segment", "stale"},
	{"late-halt", "a stalled disk does not halt the run", "stall"},
	{"unlink-before-floor", "retention removes segments before the manifest says so", "retention"},
	{"floor-in-one-copy", "the manifest's previous copy does not know of the floor", "retention"},
	{"removal-unsynced", "a run's files are removed before its new name is on the disk", "retention"},
}

// beforehand lists the mutants with which a row does not come as far as to a case, and the words in which it says so. The runs
// that it starts from are judged first, by the same promises, and what such a mutant breaks is among them. A row that fails
// before its first case for anything else has not caught the mutant.
var beforehand = map[string]string{
	// A run is damaged and recovered; the judge demands that reading it ends in an error.
	"shorten-on-damage": `specimen "quarantined": 2 entries, but 2 are claimed, and an error: false`,
	"ignore-evidence":   `specimen "quarantined": 2 entries, but 2 are claimed, and an error: false`,
	// The same damage is one that only the digest shows.
	"skip-digest": `specimen "quarantined": the damage is not there`,
	// The second decoder, which keeps to the format pages, believes no frame of such a run, torn or not.
	"drop-salt": "no power cut tears the last batch",
}
