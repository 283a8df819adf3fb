package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestComparisonNamesWhatIsThere holds docs/comparison.md to the repository: each row shows something, and what it names
// is a file, a test function or a spec that exists.
func TestComparisonNamesWhatIsThere(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs", "comparison.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := allTests(t, root)
	evidence := regexp.MustCompile("`[^`]+`")
	rows := map[string]int{}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| shown by |") {
			continue
		}
		rows[section]++
		named := evidence.FindAllString(cells[4], -1)
		if len(named) == 0 {
			t.Errorf("%s: nothing shows it", cells[1])
		}
		for _, name := range named {
			if name = strings.Trim(name, "`"); !there(root, tests, name) {
				t.Errorf("%s:%s is shown by %q, which is not there", section, cells[1], name)
			}
		}
	}
	// The rows of the tables that the comparison was made from.
	for title, want := range map[string]int{
		"What a queue can be told to be": 10, "Its life": 10, "What it tells": 6, "What users ask of the others": 17,
	} {
		if rows[title] != want {
			t.Errorf("%q has %d rows, want %d", title, rows[title], want)
		}
	}
}

func there(root, tests, name string) bool {
	if spec, ok := strings.CutPrefix(name, "It: "); ok {
		return strings.Contains(tests, `It("`+spec+`"`)
	}
	if strings.Contains(name, "/") {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	return strings.Contains(tests, "func "+name+"(")
}

// allTests is the text of every test file.
func allTests(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bin" || entry.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
