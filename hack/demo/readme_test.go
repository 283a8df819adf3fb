package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What the README shows of the demo is what the demo prints: every line of its excerpt fits a format of the story.
func TestReadmeShowsWhatTheDemoPrints(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var excerpt string
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 1 && strings.Contains(block, "\nDEMO OK ") {
			excerpt = block
		}
	}
	formats, kept := formats(t), 0
	for line := range strings.Lines(excerpt) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "   ok  ") {
			kept++
		}
		if !printed(formats, line) {
			t.Errorf("README shows a line that no format of the demo prints: %s", line)
		}
	}
	if kept == 0 {
		t.Error("README shows no promise that was kept")
	}
	for _, reworded := range []string{"   ok  restarted in the same pod; 20 calls done", "DEMO OK calls=1", "   anything"} {
		if printed(formats, reworded) {
			t.Errorf("this test would let the README say: %s", reworded)
		}
	}
}

func printed(formats []*regexp.Regexp, line string) bool {
	for _, f := range formats {
		if f.MatchString(line) {
			return true
		}
	}
	return false
}

// formats are the lines that the sources tell the terminal to print, with anything in place of the verbs.
func formats(t *testing.T) (out []*regexp.Regexp) {
	t.Helper()
	frames := map[string]string{
		"step":   `^\d+\. (?:LINE) +[\d.]+ s$`,
		"kept":   `^   (?:ok|  )  (?:LINE)$`,
		"say":    `^   (?:LINE)$`,
		"number": `^   (?:LINE) .+$`,
		"line":   `^(?:LINE)$`,
	}
	verb := regexp.MustCompile(`%[-+# 0-9.]*[a-z]`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || frames[method.Sel.Name] == "" {
				return true
			}
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			format, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(format, "\n") {
				words := verb.Split(line, -1)
				if strings.TrimSpace(strings.Join(words, "")) == "" {
					continue // Nothing but values: it would fit everything.
				}
				for i := range words {
					words[i] = regexp.QuoteMeta(words[i])
				}
				out = append(out, regexp.MustCompile(strings.Replace(frames[method.Sel.Name], "LINE", strings.Join(words, ".+?"), 1)))
			}
			return true
		})
	}
	return out
}
