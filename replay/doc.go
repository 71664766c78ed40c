// Package replay rebuilds an engine's state from the log: the newest snapshot whose blob is good, and the entries behind
// it, in seq order, over a chain of runs. It shows parts of the log to whoever wants to know what happened, and finds the
// entry from which on two implementations disagree.
//
//   - Prepare says what would be done. Restore does it, through an Applier; with Options.DryRun it only reads and counts.
//   - Registry is an Applier's half that decodes by payload type.
//   - Select is for forensics: a range of seqs, one order, one correlation. It applies nothing.
//   - Join puts outside data, such as market data, beside a part of the log.
//   - Bisect and CompareRecorded narrow down a divergence.
//
// A chain is a list of readers, the newest run first, as runlog's Run.Parents returns it, or OpenChain. Replay takes what
// readers give: it never opens runs itself, locks nothing and writes nothing. Memory use does not depend on the length of
// the log. An entry's view lives until the Applier returns.
//
// docs/replay.md is a guide for authors of engines.
package replay
