// Package proof shows single entries of a sealed run to somebody who does not have the run.
//
// The entries of a run are the leaves of a Merkle tree, as RFC 6962 builds it. A [Statement] ties the tree's root to
// the run: who it is, how many entries it has, its digest and its manifest's. It may be signed with Ed25519. A proof
// file holds entries in full, and for each the hashes that lead from it to the root; [Check] needs that file and a
// statement that the reader trusts, and nothing else: no log, no index, no network.
//
// The package reads and writes no run: who makes a statement hands it the entries of a run that was verified. Tree and
// signed notes are those of golang.org/x/mod/sumdb, which Go's checksum database is built of. The bytes are specified in
// docs/format/proof.md, what a proof does not prove too.
package proof
