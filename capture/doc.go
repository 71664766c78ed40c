// Package capture turns an engine's typed messages into entries of a log: message -> entry.Draft -> Submit.
//
// A Registry is an allow-list by Go type: it says how each type of message is encoded, what its payload type is called,
// and which keys, headers, identity and time it brings. What is not listed is not captured.
//
//	var reg capture.Registry
//	err := capture.Register(&reg, "order.submit", func(dst []byte, m Submit, k *capture.Keys) ([]byte, error) {
//		k.Add(runlog.ClientOrderID, m.ClientID)
//		k.AddIfSet(runlog.VenueOrderID, m.VenueID)
//		return m.AppendBinary(dst)
//	},
//		capture.WithIdentity(func(m Submit) (runlog.ID, bool) { return m.ID, true }),
//		capture.WithTime(func(m Submit) int64 { return m.At }))
//
// An Adapter captures messages into one log. Where the type is known at compile time, bind a Handle: it uses no
// reflection and, once warm, does not allocate. A bus that carries any uses CaptureAny, or Tap around its dispatch.
//
//	a, err := capture.New(&reg, run, capture.Options{})
//	submits, err := capture.Bind[Submit](a, "commands")
//	res, err := submits.Capture(m) // res.Seq
//	err = a.Tap("events", ev, func() { bus.dispatch(ev) })
//
// # Outcomes
//
// Without an error a capture ends in one of three ways: Captured (the log accepted it as Result.Seq), NotRegistered
// (its type is not on the list) or Duplicate (its identity was captured before). Accepted is not durable: whoever
// must not act before the message is safe waits for Result.Seq, with the run's WaitDurable or with a gate on the
// durable watermark.
//
// Errors are of three types. EncodeError: the encoder failed. DraftError: the log refused this one draft, for example
// for a key of an undeclared kind. Both concern one message, nothing was accepted for it, and capturing goes on.
// EndedError (errors.Is ErrCaptureEnded): the log does not take entries any more, because it has halted or was
// closed; the first such error ends capturing for good, and every later capture returns it at once, without running
// encoder or log. In all three cases the caller knows that the message is not in the log, and can refuse to act on
// it; Tap does just that. A panic in an encoder or extractor is the caller's bug and is not recovered; it leaves the
// adapter usable.
//
// # Duplicates
//
// A bus may dispatch one message on several hops; it shall be captured once. If a type has an identity extractor, the
// id becomes the entry's ID, and the pair (payload type, id) is remembered once its submit has succeeded, and not
// before: a message that failed can be tried again. The first hop's topic is the one in the log. Concurrent captures
// of one identity make exactly one entry. Options.Window bounds how many identities are remembered, over all types,
// oldest out first. A new process primes the window from the logs of its predecessors, so that a message that is
// delivered again after a crash is recognised: see Adapter.SeedFrom. Types without identities are captured each time.
//
// # Memory
//
// Payload, keys and draft live in scratch memory that is used again after Submit returns. So Submit has to copy, as the
// log does, and an encoder must keep neither dst nor the Keys.
//
// Registry, Adapter and Handle are safe for concurrent use. The adapter owns neither registry nor log and needs no
// Close.
package capture
