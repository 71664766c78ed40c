// Package manifest says who a run is, where it came from and how it ended: the manifest file, the quarantine file, the
// identity that every segment's header repeats, the halt record, the content of the instance's lock file, and run ids.
//
// The files are specified in docs/format/manifest.md. Each is a line of text with a checksum and one JSON object, so
// that cat shows them and every flipped bit is found. They belong to whoever holds the instance's lock; anybody may
// read them. Write and WriteQuarantine return after the new content is durable, its name included; after a crash the
// old or the new content is there, never a mixture. Slices passed in are not kept; values returned belong to the caller.
package manifest
