//go:build runlog_hooks

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// testHook makes a worker misbehave as RUNLOG_TEST_WORKER says: ACTION, or ACTION@TEXT for runs whose directory holds
// TEXT; what is to be done after the check is returned. Only builds with the tag runlog_hooks have it.
func testHook(a *app, dir string) (atEnd func()) {
	atEnd = func() {}
	action, where, _ := strings.Cut(os.Getenv("RUNLOG_TEST_WORKER"), "@")
	if action == "" || !strings.Contains(dir, where) {
		return atEnd
	}
	action, arg, _ := strings.Cut(action, "=")
	n, _ := strconv.Atoi(arg)
	switch action {
	case "hang":
		time.Sleep(time.Hour)
	case "sleep":
		time.Sleep(time.Duration(n) * time.Millisecond)
	case "abort": // with the default action, as a C library's abort would
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGABRT)
		time.Sleep(time.Hour)
	case "kill":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	case "panic":
		panic("a bug in the check")
	case "exit":
		os.Exit(n)
	case "late": // with its result told
		return func() {
			_ = a.out.Flush()
			os.Exit(n)
		}
	case "garbage":
		fmt.Println("this is no record")
		fmt.Println(strings.Repeat("x", 1<<20))
		os.Exit(0)
	case "findings": // many, then the check
		for i := range n {
			off := int64(i)
			_ = a.printJSON(findingJSON{Record: "finding", Dir: dir, Kind: "frame", Path: dir, Offset: &off, Detail: "flood"})
		}
		_ = a.out.Flush()
	case "stderr":
		for range n {
			fmt.Fprintln(os.Stderr, "a line that fills the pipe")
		}
	default:
		panic("RUNLOG_TEST_WORKER: " + action)
	}
	return atEnd
}
