package rpcclient

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each file of vectors is in the document's list, and run by a test.
func TestVectorsAreListedAndRun(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "protocol", "vectors", "*"))
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range tests {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	for _, path := range files {
		name := filepath.Base(path)
		if !strings.Contains(string(document), "\n| `"+name+"` |") {
			t.Errorf("%s is not in docs/protocol.md", name)
		}
		if !strings.Contains(code.String(), `](t, "`+name+`")`) && !strings.Contains(code.String(), `/vectors/`+name+`")`) {
			t.Errorf("no test runs %s", name)
		}
	}
}
