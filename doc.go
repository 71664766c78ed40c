// Package runlog is the durable, authoritative log of every state-affecting message in a trading engine.
//
// An engine opens a Run, hands it each message before any handler sees it (Submit, or package capture for typed
// messages), and lets nothing leave the process before the Durable watermark has reached it (see Gate). After a
// crash, Open recovers the runs before, and Parents gives them to rebuild the state from: package replay does that,
// beginning with the last snapshot that Anchor has recorded. Everything can be found by seq, by order id, by time, live or
// years later, here or with the runlog tool.
//
// An entry is acknowledged when its seq is at or below Durable; then no crash and no power cut loses it, within the
// assumptions of docs/guarantees.md. When the disk falls too far behind, submitters wait, and past Options.HaltAfter
// the run halts with a *HaltError: it never drops an entry.
//
// A Run and its Readers are safe for concurrent use.
package runlog
