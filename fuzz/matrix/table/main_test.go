package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestThePageKeepsWhatWasWrittenByHand(t *testing.T) {
	var made bytes.Buffer
	page(&made, nil)
	if !strings.HasSuffix(made.String(), "\n\n"+found) || !strings.HasPrefix(found, "## ") {
		t.Errorf("a page that is made anew ends with\n%s", made.String()[max(0, made.Len()-200):])
	}
	written, err := os.ReadFile("../../../docs/crash-matrix.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(written), found) {
		t.Error("docs/crash-matrix.md has another text at its end than found.md")
	}
}
