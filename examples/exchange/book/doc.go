// Package book is a limit order book with price-time priority: the state that the example exchange must not lose.
//
// It is deterministic: the same commands in the same order give the same events, the same book and the same Hash, on
// every machine. That is what makes a log of commands enough to rebuild it. There is no clock and no randomness in
// here, and no map is ever ranged over.
//
// A Book can be driven in two ways, never both at once. Apply takes commands and matches them: an exchange. Add,
// Reduce, Replace and Clear mirror what a venue reports about its own book, which has been matched already.
//
// A Book belongs to one goroutine.
package book
