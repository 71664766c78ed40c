package bench

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestReadmeShowsTheExample: the Go code in the README is the body of the root package's Example, which the tests run.
func TestReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	_, rest, found := strings.Cut(string(readme), "```go\n")
	shown, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("README.md has no block of Go code")
	}
	if want := exampleBody(t); shown != want {
		t.Errorf("README.md shows\n%s\nbut the example is\n%s", shown, want)
	}
}

// exampleBody returns what stands between the braces of func Example, one tab less indented, without the expected output.
func exampleBody(t *testing.T) string {
	const path = "../example_test.go"
	src, err := os.ReadFile(path)
	check(t, err)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, src, 0)
	check(t, err)
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "Example" {
			first, last := fset.Position(fn.Body.Lbrace).Offset+1, fset.Position(fn.Body.Rbrace).Offset
			body, _, _ := strings.Cut(string(src[first:last]), "\t// Output:")
			lines := strings.SplitAfter(strings.TrimPrefix(body, "\n"), "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "\t")
			}
			return strings.TrimRight(strings.Join(lines, ""), "\n") + "\n"
		}
	}
	t.Fatal(path + " has no func Example")
	return ""
}
