package main

import (
	"fmt"
	"os"
	"testing"
)

// toolDir holds the tools that tests build.
var toolDir string

// TestMain lets the test binary be the worker that verify starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerVerb {
		main()
	}
	var err error
	if toolDir, err = os.MkdirTemp("", "runlog-tool-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(toolDir)
	os.Exit(code)
}
