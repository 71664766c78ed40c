package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// environment says with what, when and where the page was made.
func environment(p *plan, command string, took time.Duration) string {
	var b strings.Builder
	fmt.Fprint(&b, "| | |\n|---|---|\n")
	row := func(name, value string) { fmt.Fprintf(&b, "| %s | %s |\n", name, value) }
	row("date", time.Now().UTC().Format(time.DateOnly))
	row("command", "`"+command+"`, "+took.Round(time.Second).String())
	row("CPU", fmt.Sprintf("%s, %d cores", field("/proc/cpuinfo", "model name"), runtime.NumCPU()))
	row("memory", memory())
	row("kernel", kernel())
	row("file system", fileSystem(p.dir))
	row("Go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	row("sync policy", "every append is durable (fdatasync or fsync) before its call returns, or before the clock stops")
	row("payload", fmt.Sprintf("%d bytes where nothing else is said: a binary event and its JSON text, %s different ones and a number", p.size, grouped(mostKinds)))
	row("runlog", "this tree, defaults; stall thresholds off")
	version := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			version[m.Path] = m.Version
		}
	}
	for _, s := range p.stores {
		if isPeer(s) {
			row(s.name(), fmt.Sprintf("`%s` %s", s.module(), version[s.module()]))
		}
	}
	return b.String()
}

// field returns what stands behind the first "name:" in a file of the kernel's.
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func memory() string {
	var kib float64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%f", &kib); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.0f GiB", kib/(1<<20))
}

// commit is what is being measured, as far as git knows.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude", "*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// fileSystem finds the mount that a folder is on, and tells its kind and options.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	mounts, err2 := os.ReadFile("/proc/self/mounts")
	if err != nil || err2 != nil {
		return "unknown"
	}
	best, found := "", "unknown"
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // device, mount point, kind, options
		if len(f) < 4 || len(f[1]) < len(best) {
			continue
		}
		if rel, err := filepath.Rel(f[1], dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			best, found = f[1], f[2]+" ("+f[3]+")"
		}
	}
	return found + journal(best)
}

// journal tells an ext4 without one, which makes a difference to syncs.
func journal(mount string) string {
	var st unix.Stat_t
	if unix.Stat(mount, &st) != nil {
		return ""
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return ""
	}
	name := filepath.Base(link)
	if _, err := os.Stat("/sys/fs/ext4/" + name); err != nil {
		return ""
	}
	if _, err := os.Stat("/proc/fs/jbd2"); err != nil {
		return ", without a journal"
	}
	if found, _ := filepath.Glob("/proc/fs/jbd2/" + name + "-*"); len(found) == 0 {
		return ", without a journal"
	}
	return ", with a journal"
}
