// Package entry says what an entry is: its fields, ids and keys, its limits, and its binary form.
//
// A Draft is what a caller hands in; the writer gives it a seq and a publish time and it becomes an entry. A View is an
// entry in place, inside memory that somebody else owns: no copy, no allocation, valid only as long as its source says.
// An Entry is a copy that the caller owns.
//
// The binary form is specified in docs/format/segment.md. Nothing here does I/O.
package entry
