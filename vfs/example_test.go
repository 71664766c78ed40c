package vfs_test

import (
	"errors"
	"fmt"
	"syscall"

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

// A power cut before each operation that changes the disk: here it finds, at each, the old content or the new one.
func ExampleMem_SetHook() {
	disk := vfs.NewMem(vfs.MemOptions{})
	vfs.WriteFileAtomic(disk, "/", "config", []byte("old"))

	cuts := 0
	disk.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange == 0 {
			return nil
		}
		for _, lose := range []vfs.Chooser{vfs.LoseAll(), vfs.KeepAll(), vfs.Random(uint64(op.N))} {
			after := disk.Crash(lose)
			cuts++
			if b, _ := vfs.ReadFile(after, "config", 1<<20); string(b) != "old" && string(b) != "new" {
				fmt.Printf("before %s %s: the file is %q\n", op.Kind, op.Name, b)
			}
		}
		return nil // or the error that the operation shall fail with
	})
	err := vfs.WriteFileAtomic(disk, "/", "config", []byte("new"))
	fmt.Println(cuts, "power cuts,", err)
	// Output:
	// 18 power cuts, <nil>
}

// A killed process leaves its page cache behind; a power cut takes what was not synced.
func ExampleMem_Kill() {
	disk := vfs.NewMem(vfs.MemOptions{})
	vfs.WriteFileAtomic(disk, "/", "log", []byte("one "))
	f, _ := disk.Open("log")
	f.WriteAt([]byte("two "), 4) // not synced

	killed, _ := vfs.ReadFile(disk.Kill(), "log", 1<<20)
	crashed, _ := vfs.ReadFile(disk.Crash(vfs.LoseAll()), "log", 1<<20)
	fmt.Printf("%q after a kill, %q after a power cut\n", killed, crashed)
	// Output:
	// "one two " after a kill, "one " after a power cut
}

// After a sync that failed, the next one reports a success that is none, as on Linux.
func ExampleMem_Inject() {
	disk := vfs.NewMem(vfs.MemOptions{})
	vfs.WriteFileAtomic(disk, "/", "log", []byte("one "))
	disk.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: "log", Err: syscall.EIO}) // the next sync of this file, once
	f, _ := disk.Open("log")
	f.WriteAt([]byte("two "), 0)

	fmt.Println("first sync fails:", errors.Is(f.Datasync(), syscall.EIO))
	fmt.Println("second sync:", f.Datasync())
	seen, _ := vfs.ReadFile(disk, "log", 1<<20)
	left, _ := vfs.ReadFile(disk.Crash(vfs.KeepAll()), "log", 1<<20)
	fmt.Printf("programs read %q, the disk holds %q\n", seen, left)
	// Output:
	// first sync fails: true
	// second sync: <nil>
	// programs read "two ", the disk holds "one "
}
