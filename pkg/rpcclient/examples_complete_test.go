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

// Every exported function, and every method of an exported type that a program calls by its name, is called in an
// example; the forms of call, the constructors and the operations of virtual queues in one of their own, with its
// output.
func TestEveryEntryPointHasAnExample(t *testing.T) {
	own := func(ty, name string) bool {
		return ty == "" && strings.HasPrefix(name, "New") || ty == "Method" && name != "Name"
	}
	for folder, tc := range map[string]struct {
		own   func(ty, name string) bool
		least int
	}{
		".":            {own, 70},
		"injected":     {func(ty, name string) bool { return strings.HasPrefix(name, "Parse") }, 8},
		"rpcenv":       {own, 2},
		"rpcproto":     {own, 1},
		"rpctest":      {func(ty, name string) bool { return ty == "" }, 2},
		"rpcotel":      {own, 4},
		"virtualqueue": {func(ty, name string) bool { return ty == "Client" || name == "New" }, 10},
	} {
		missing, seen := withoutExample(t, folder, tc.own)
		for _, m := range missing {
			t.Errorf("%s: %s", folder, m)
		}
		if seen < tc.least {
			t.Errorf("%s: only %d exported functions and methods were found", folder, seen)
		}
	}
}

// withoutExample lists the exported functions of a package, and the methods of its exported types, that no
// example calls, or that should have an example of their own, with output, and have none. Methods that only
// implement an interface of the standard library are called by what prints and looks through values.
func withoutExample(t *testing.T, folder string, own func(ty, name string) bool) (missing []string, seen int) {
	t.Helper()
	files := token.NewFileSet()
	//nolint:staticcheck // doc.NewFromFiles wants the files of one package; build constraints play no part here
	packages, err := parser.ParseDir(files, folder, func(fs.FileInfo) bool { return true }, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var sources []*ast.File
	called := map[string]bool{} // what files with examples call
	owned := map[string]bool{}  // examples with output
	for _, p := range packages {
		for name, f := range p.Files {
			if !strings.HasSuffix(name, "_test.go") {
				sources = append(sources, f)
				continue
			}
			examples := doc.Examples(f)
			for _, e := range examples {
				if e.Output != "" {
					owned[e.Name] = true
				}
			}
			if len(examples) == 0 || folder == "." && !strings.HasPrefix(name, "example") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					fun := c.Fun
					switch g := fun.(type) { // of explicit types
					case *ast.IndexExpr:
						fun = g.X
					case *ast.IndexListExpr:
						fun = g.X
					}
					if s, ok := fun.(*ast.SelectorExpr); ok {
						called[s.Sel.Name] = true
					}
				}
				return true
			})
		}
	}
	p, err := doc.NewFromFiles(files, sources, "github.com/replyqueue/replyqueue/pkg/rpcclient/"+folder)
	if err != nil {
		t.Fatal(err)
	}
	want := func(ty, name string) {
		seen++
		example := strings.TrimPrefix(ty+"_"+name, "_")
		switch {
		case own(ty, name) && !owned[example]:
			missing = append(missing, name+": no Example"+example+" with output")
		case !called[name]:
			missing = append(missing, example+": called in no example")
		}
	}
	for _, f := range p.Funcs {
		want("", f.Name)
	}
	for _, ty := range p.Types {
		for _, f := range ty.Funcs {
			want("", f.Name)
		}
		for _, m := range ty.Methods {
			if !slices.Contains([]string{"Error", "Unwrap", "String"}, m.Name) {
				want(ty.Name, m.Name)
			}
		}
	}
	return missing, seen
}
