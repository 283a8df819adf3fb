package rpcclient_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// Every exported function, and every method of the types that programs work with, is shown in an example;
// the forms of call and the constructors in one of their own, with its output.
func TestEveryEntryPointHasAnExample(t *testing.T) {
	files := token.NewFileSet()
	//nolint:staticcheck // doc.NewFromFiles wants the files of one package; build constraints play no part here
	packages, err := parser.ParseDir(files, ".", func(fs.FileInfo) bool { return true }, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var sources []*ast.File
	for _, f := range packages["rpcclient"].Files {
		sources = append(sources, f)
	}
	shown := map[string]bool{} // identifiers in example functions
	own := map[string]bool{}   // example functions with output
	for name, f := range packages["rpcclient_test"].Files {
		if !strings.HasPrefix(name, "example") {
			continue
		}
		for _, e := range doc.Examples(f) {
			if e.Output != "" {
				own[e.Name] = true
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				shown[s.Sel.Name] = true
			}
			return true
		})
	}
	p, err := doc.NewFromFiles(files, sources, "github.com/replyqueue/replyqueue/pkg/rpcclient")
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	seen := 0
	want := func(name, example string, ownExample bool) {
		seen++
		switch {
		case ownExample && !own[example]:
			missing = append(missing, name+": no Example"+example+" with output")
		case !shown[name[strings.LastIndex(name, ".")+1:]]:
			missing = append(missing, name+": in no example")
		}
	}
	for _, f := range p.Funcs {
		want(f.Name, f.Name, strings.HasPrefix(f.Name, "New"))
	}
	for _, ty := range p.Types {
		for _, f := range ty.Funcs {
			want(f.Name, f.Name, strings.HasPrefix(f.Name, "New"))
		}
		if !slices.Contains([]string{"Method", "Requester", "Responder", "Pending", "Channel", "Stats", "StatsSnapshot"}, ty.Name) {
			continue
		}
		for _, m := range ty.Methods {
			want(ty.Name+"."+m.Name, ty.Name+"_"+m.Name, ty.Name == "Method" && m.Name != "Name")
		}
	}
	for _, m := range missing {
		t.Error(m)
	}
	if seen < 60 {
		t.Errorf("only %d exported functions and methods were found", seen)
	}
}
