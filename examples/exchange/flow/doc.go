// Package flow is where the exchange's input comes from: a seeded generator of order flow, and a reader of recorded
// market-by-order data.
//
// The generator is open loop: it never looks at what the engine makes of its commands, so that position n of the flow
// depends on the seed alone. An engine that finds n commands in its log goes on with Skip(n). The price is that some
// cancels come too late, as they do in real life.
package flow
