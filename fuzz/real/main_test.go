//go:build linux

package real

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// workEnv is the folder of the tests' own tmpfs, in the process that runs them in a mount namespace of its own.
const workEnv = "RUNLOG_REAL_WORK"

// isolated is why there is no mount namespace; nil: there is one, and work is a tmpfs that nobody else sees.
var (
	isolated error
	work     string
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		os.Exit(play())
	}
	if dir := os.Getenv(workEnv); dir != "" {
		work = dir
		isolated = unix.Mount("runlog-real", dir, "tmpfs", 0, "mode=700")
		debug.SetGCPercent(400)
		os.Exit(m.Run())
	}
	if code, err := again(); err == nil {
		os.Exit(code)
	} else {
		isolated = fmt.Errorf("a mount namespace: %w", err)
	}
	os.Exit(m.Run())
}

// again runs this program once more, in a mount namespace of its own: when that process ends, its mounts end with it.
func again() (code int, err error) {
	dir, err := os.MkdirTemp("", "runlog-real-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(dir) // the mount on it is not in this namespace
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), workEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if code = exit.ExitCode(); code < 0 { // a signal
			code = 2
		}
		return code, nil
	}
	return 0, err
}

// The words for what needs checks beside the names of tools.
const (
	needRoot = "root"
	needFUSE = "FUSE"
	needLoop = "loop devices"
)

// needs ends the test if something is not there that it needs: where CI is set it fails, elsewhere it skips.
func needs(t *testing.T, what ...string) {
	t.Helper()
	var lacks []string
	for _, w := range what {
		var err error
		switch w {
		case needRoot:
			if os.Geteuid() != 0 {
				err = errors.New("this is not root")
			} else {
				err = isolated
			}
		case needFUSE:
			_, err = os.Stat("/dev/fuse")
		case needLoop:
			_, err = os.Stat("/dev/loop-control")
		default:
			_, err = exec.LookPath(w)
		}
		if err != nil {
			lacks = append(lacks, fmt.Sprintf("%s (%v)", w, err))
		}
	}
	if len(lacks) == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("cannot run without %s", strings.Join(lacks, ", "))
	}
	t.Skipf("needs %s", strings.Join(lacks, ", "))
}

// folder makes an empty folder: on the tests' tmpfs, if there is one.
func folder(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	if isolated == nil {
		base = work
	}
	dir, err := os.MkdirTemp(base, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// sub makes an empty folder in dir.
func sub(dir string) (string, error) { return os.MkdirTemp(dir, "") }

// tool runs a tool; its error has what the tool said.
func tool(name string, args ...string) error {
	forking.Lock()
	out, err := exec.Command(name, args...).CombinedOutput()
	forking.Unlock()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}
