// Package index finds entries within one segment, by seq and by key, and tells which segments need not be searched at
// all.
//
// A Builder is the index of the segment that is being written, in memory; it is also what an index file is made from.
// A File is the index of a sealed segment: mapped, used in place, nothing is read through when it is opened but the
// header and the dictionary. A Filter covers 4, 16, 64, ... segments and lets a lookup skip them. The bytes are
// specified in docs/format/index.md.
//
// Everything here is derived from segments and can be built again. So an index is never repaired: whatever does not
// verify is an error that wraps format.ErrCorrupt and says where, and the owner (package wal) builds a new one. Index
// files are synced and renamed into place before Write returns; nothing waits for them.
//
// Keys are fingerprints (entry.Fingerprint), so all that a lookup returns are candidates: nearly always right, never
// incomplete. The entry itself decides.
//
// Concurrency: one goroutine adds to a Builder, any number look up. A File or Filter may be used by any number, until
// Close; the owner sees to it that none is in a call then. Nothing that is returned borrows from a mapping.
//
// A file that is cut short while it is mapped, or a medium that does not give its bytes, is a fault for who reads there.
// Open, OpenFilter, BuildFilter and what reads a whole file turn it into an error that wraps format.ErrMappingLost. The
// look-ups (Offset, First, Seqs, MayContain) do not: package wal guards its calls, once for many.
package index
