// Command peers damages the logs of other stores and of runlog in the same ways and tells what each makes of it: every entry that was
// acknowledged, an error and what it names, or silent loss. It writes docs/damage.md; its test holds runlog to its bar.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

//go:embed page.md
var page string

func main() {
	out := flag.String("out", "", "file for the page; empty: standard output")
	dir := flag.String("dir", "", "folder for the damaged stores, on the disk that they shall be tried on; empty: the system's temporary folder")
	flag.Parse()
	if err := run(*out, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(out, dir string) error {
	tmp, err := os.MkdirTemp(dir, "runlog-peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var compared, swept bytes.Buffer
	for _, l := range loads {
		var columns []column
		for _, s := range everyStore() {
			fmt.Fprintf(os.Stderr, "%s: %s\n", s.name(), l.title)
			c, err := compare(s, l, tmp)
			if err != nil {
				return err
			}
			columns = append(columns, c)
		}
		comparisonTable(&compared, l, columns)
	}
	below := 0
	for _, l := range layouts {
		fmt.Fprintln(os.Stderr, l.title)
		list, err := sweepAll(l, tmp, 0, 1)
		if err != nil {
			return err
		}
		sweepTable(&swept, l, list)
		for i := range list {
			below += len(list[i].below())
		}
	}
	text := strings.NewReplacer(
		"{{environment}}", environment(tmp), "{{compared}}", compared.String(), "{{swept}}", swept.String(),
		"{{below}}", fmt.Sprint(below),
	).Replace(page)
	text = strings.TrimRight(text, "\n") + "\n"
	if out == "" {
		_, err := io.WriteString(os.Stdout, text)
		return err
	}
	return os.WriteFile(out, []byte(text), 0o644)
}

// environment says with what, when and where the page was made.
func environment(dir string) string {
	var b strings.Builder
	fmt.Fprint(&b, "| | |\n|---|---|\n")
	version := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			version[m.Path] = m.Version
		}
	}
	for _, s := range everyStore() {
		if _, ours := s.(runlogStore); !ours {
			fmt.Fprintf(&b, "| %s | `%s` %s |\n", s.name(), s.module(), version[s.module()])
		}
	}
	fmt.Fprintln(&b, "| runlog | this tree |")
	fmt.Fprintf(&b, "| date | %s |\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "| Go | %s %s/%s |\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(&b, "| file system | %s |\n", fileSystem(dir))
	fmt.Fprint(&b, "| command | `cd fuzz/peers && go run . -out ../../docs/damage.md` |\n")
	return b.String()
}

// fileSystem asks df, which every system has in some form.
func fileSystem(dir string) string {
	b, err := exec.Command("df", "-T", dir).Output()
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if fields := strings.Fields(lines[len(lines)-1]); err == nil && len(fields) > 1 {
		return fields[1]
	}
	return "unknown"
}
