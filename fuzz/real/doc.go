// Package real holds the rows of the fault matrix that need a real kernel: file systems on a disk that loses power, fails
// or stalls, full disks, limits, kills at each system call, lost mappings, two processes. It is nothing but tests, for
// Linux; most need root, FUSE, loop devices and the tools that the tests name. Where CI is set, a row that cannot run
// fails; elsewhere it skips and says what it lacks.
//
// All mounts are made in a mount namespace of the tests' own, on devices that detach with their last user: whatever
// happens to the process, nothing stays behind.
package real
