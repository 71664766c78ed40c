package vfs_test

import (
	"fmt"

	"github.com/runlog-io/runlog/vfs"
)

// An engine that stores a balance in two steps can end, after a power cut, with any mix of what it did not sync: Mem
// shows all of them, so that a test of recovery meets each.
func ExampleMem_EachCrash() {
	disk := vfs.NewMem(vfs.MemOptions{})
	f, _ := disk.Create("ledger")
	f.WriteAt([]byte("balance=100"), 0)
	f.Datasync()
	disk.SyncDir("/")

	f.WriteAt([]byte("balance=250"), 0)   // not synced yet
	f.WriteAt([]byte("checked=yes"), 512) // in the next sector: may land first

	for choices, after := range disk.EachCrash() {
		b, _ := vfs.ReadFile(after, "ledger", 1<<20)
		second := "nothing"
		if len(b) > 512 {
			second = fmt.Sprintf("%q", b[512:])
		}
		fmt.Printf("%v: %s, then %s\n", choices, b[:11], second)
	}
	// Output:
	// [0 0]: balance=100, then nothing
	// [0 1]: balance=250, then nothing
	// [1 0 0]: balance=100, then "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	// [1 0 1]: balance=100, then "checked=yes"
	// [1 1 0]: balance=250, then "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	// [1 1 1]: balance=250, then "checked=yes"
}
