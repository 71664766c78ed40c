package vfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const lockEnv = "VFS_TEST_LOCK"

// TestMain turns the test binary into a process that holds a lock until it is killed.
func TestMain(m *testing.M) {
	if name := os.Getenv(lockEnv); name != "" {
		_, err := OS.Lock(name, []byte(strconv.Itoa(os.Getpid())))
		fmt.Println(err)
		io.Copy(io.Discard, os.Stdin) // ends with the parent, whatever happens to it
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSIGKILLFreesTheLock(t *testing.T) {
	needsWriting(t)
	name := filepath.Join(t.TempDir(), "LOCK")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lockEnv+"="+name)
	stdin, err := child.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || said != "<nil>\n" {
		t.Fatalf("child: %q, %v", said, err)
	}
	pid := strconv.Itoa(child.Process.Pid)
	_, err = OS.Lock(name, []byte("me"))
	var locked *LockedError
	if !errors.As(err, &locked) || string(locked.Holder) != pid {
		t.Fatalf("Lock beside the child: %v", err)
	}
	if by, held, err := OS.LockHolder(name); !held || err != nil || string(by) != pid {
		t.Fatalf("LockHolder: %q, %v, %v", by, held, err)
	}
	must(t, child.Process.Kill())
	child.Wait()
	if _, held, err := OS.LockHolder(name); held || err != nil {
		t.Fatalf("LockHolder after SIGKILL: %v, %v", held, err)
	}
	l, err := OS.Lock(name, []byte("me"))
	must(t, err)
	must(t, l.Close())
}

func TestALockIsFreeWhenItIsClosedWhateverIsBeingForked(t *testing.T) {
	needsWriting(t)
	name := filepath.Join(t.TempDir(), "LOCK")
	stop := make(chan struct{})
	var forks sync.WaitGroup
	for range 2 {
		forks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command(os.Args[0], "-test.run=^$").Run() // between fork and exec it has all files open
				}
			}
		})
	}
	for range 2000 {
		l, err := OS.Lock(name, []byte("me"))
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	forks.Wait()
}

func TestLockHolderWorksWhereNothingCanBeWritten(t *testing.T) {
	needsWriting(t)
	name := filepath.Join(t.TempDir(), "LOCK")
	l, err := OS.Lock(name, []byte("holder"))
	must(t, err)
	defer l.Close()
	must(t, os.Chmod(name, 0o444))
	old := time.Unix(1e9, 0)
	must(t, os.Chtimes(name, old, old))
	if by, held, err := OS.LockHolder(name); !held || err != nil || string(by) != "holder" {
		t.Fatalf("LockHolder: %q, %v, %v", by, held, err)
	}
	if fi, err := os.Stat(name); err != nil || !fi.ModTime().Equal(old) {
		t.Fatalf("LockHolder changed the file: %v, %v", fi.ModTime(), err)
	}
}

func TestErrorsOfTheRealFileSystemCarryThePath(t *testing.T) {
	needsWriting(t)
	f := create(t, OS, filepath.Join(t.TempDir(), "named"), "x")
	must(t, f.Close())
	for _, err := range []error{f.Datasync(), f.Preallocate(1)} {
		if err == nil || !strings.Contains(err.Error(), "named") {
			t.Errorf("%v", err)
		}
	}
}
