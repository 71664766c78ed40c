package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// terminal opens a pseudo terminal and returns its two ends.
func terminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var unlock, n int32
	for _, c := range []struct {
		request uintptr
		arg     *int32
	}{{syscall.TIOCSPTLCK, &unlock}, {syscall.TIOCGPTN, &n}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), c.request, uintptr(unsafe.Pointer(c.arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// onTerminal runs verify with its stderr on a terminal and returns what that shows.
func onTerminal(t testing.TB, hook string, args ...string) string {
	t.Helper()
	master, slave := terminal(t)
	cmd := exec.Command(tool(t, hooks), append([]string{"verify"}, args...)...)
	cmd.Env = append(os.Environ(), "RUNLOG_TEST_WORKER="+hook)
	cmd.Stderr = slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	shown := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(master) // ends with EIO when the other end is closed
		shown <- b.String()
	}()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return <-shown
}

func TestATerminalSeesHowFarVerifyIs(t *testing.T) {
	base, one := imported(t, many(2000))
	for range 2 {
		runlogWith(t, many(2000), "import", base, "--instance", "demo", "-").want(t, 0)
	}
	slow := "sleep=300@" + filepath.Base(one)[:4] // each worker
	bar := regexp.MustCompile(`\r\x1b\[K\d of 3 runs, [0-9.]+ \w+ of [0-9.]+ KiB(, [0-9.]+ \w+/s, \d+s left)?, 0 findings`)
	shown := onTerminal(t, slow, base, "--jobs", "1")
	if n := len(bar.FindAllString(shown, -1)); n < 2 || !strings.HasSuffix(shown, "\r\x1b[K") {
		t.Errorf("%d times in %q", n, shown)
	}
	if !regexp.MustCompile(`2 of 3 runs, .*/s, \d+s left`).MatchString(shown) {
		t.Errorf("no rate or time left in %q", shown)
	}
	for _, flag := range []string{"--no-progress", "--quiet"} {
		if shown := onTerminal(t, slow, base, "--jobs", "1", flag); shown != "" {
			t.Errorf("%s: %q", flag, shown)
		}
	}
	if r := command(t, hooks, slow, "verify", base); r.stderr != "" { // a pipe
		t.Errorf("%q", r.stderr)
	}
}
