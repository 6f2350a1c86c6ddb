package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// source is a parsed Go file of the module.
type source struct {
	path    string // from the module's root, with slashes
	dir     string // of path
	test    bool
	text    []byte
	fset    *token.FileSet
	file    *ast.File
	imports []string
	// names are the imported packages by the name that the file uses for them.
	names map[string]string
}

// at names a place in the file for a person.
func (s source) at(pos token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(pos).Line)
}

// in says whether the file is the one named, or is in a directory at or below it.
func (s source) in(name string) bool { return below(s.path, name) }

func below(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// root is the module's, seen from this package.
var root = filepath.Join("..", "..")

// skipped are folders whose content is not the project's, or is not in its repository (of a git worktree, .git is a file).
var skipped = map[string]bool{".git": true, "bin": true, "build": true, "node_modules": true, "target": true, "dist": true}

// walk calls each with every file of the project, by its path from the root.
func walk(t *testing.T, each func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && skipped[entry.Name()]:
			return filepath.SkipDir
		case !entry.Type().IsRegular() || skipped[entry.Name()]:
			return nil
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		each(filepath.ToSlash(relative))
		return nil
	})
	if err != nil {
		t.Fatalf("walk the module: %v", err)
	}
}

var parsed struct {
	once    sync.Once
	sources []source
}

// sources parses every Go file of the module once.
func sources(t *testing.T) []source {
	t.Helper()
	parsed.once.Do(func() {
		walk(t, func(name string) {
			if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
				return
			}
			parsed.sources = append(parsed.sources, parse(t, name, read(t, name)))
		})
	})
	if len(parsed.sources) == 0 {
		t.Fatal("the module has no Go file: where is its root?")
	}
	return parsed.sources
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parse(t *testing.T, name string, text []byte) source {
	t.Helper()
	s := source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), text: text,
		fset: token.NewFileSet(), names: map[string]string{}}
	var err error
	if s.file, err = parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		t.Fatalf("parse: %v", err)
	}
	for _, spec := range s.file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", name, spec.Path.Value, err)
		}
		s.imports = append(s.imports, imported)
		as := path.Base(imported)
		if spec.Name != nil {
			as = spec.Name.Name
		}
		s.names[as] = imported
	}
	return s
}

// qualified is the "path.Name" that an expression refers to in another package, or "".
func (s source) qualified(node ast.Node) string {
	selector, ok := node.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := selector.X.(*ast.Ident)
	if !ok || s.names[x.Name] == "" {
		return ""
	}
	return s.names[x.Name] + "." + selector.Sel.Name
}
