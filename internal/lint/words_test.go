package lint

import (
	"go/ast"
	"slices"
	"strings"
)

// imports that the project does without; a name stands for all packages below it too.
var forbiddenImports = []struct{ path, instead string }{
	{"log", "the log package writes to a global logger: take a *slog.Logger"},
	{"math/rand", "use math/rand/v2"},
	{"io/ioutil", "use io and os"},
	{"github.com/pkg/errors", "wrap with fmt.Errorf and %w, ask with errors.Is and errors.As"},
	{"github.com/cockroachdb/errors", "wrap with fmt.Errorf and %w, ask with errors.Is and errors.As"},
	{"golang.org/x/xerrors", "wrap with fmt.Errorf and %w, ask with errors.Is and errors.As"},
	{"github.com/golang/protobuf", "use google.golang.org/protobuf"},
	{"github.com/gogo/protobuf", "use google.golang.org/protobuf: a second registry clashes with Beam's protos"},
	{"github.com/docker/docker", "run the docker CLI in harness/container: the client drags in a daemon's dependencies"},
	{"github.com/spf13/viper", "settings are one typed struct, in config"},
	{"github.com/sirupsen/logrus", "take a *slog.Logger"},
	{"go.uber.org/zap", "take a *slog.Logger"},
	{"github.com/stretchr/testify", "compare with go-cmp and say in the message what was expected"},
	{"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/exec", "Beam's semantics are written here, not borrowed from the Go SDK's worker"},
	{"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism", "Trestle is the runner"},
}

// allowedBelow are packages below forbidden ones that are another matter.
var allowedBelow = map[string]bool{"log/slog": true, "math/rand/v2": true}

const (
	beamModule = "github.com/apache/beam/sdks/v2/"
	beamModel  = beamModule + "go/pkg/beam/model/"
)

func importsAreTheProjects(s source) (f findings) {
	for _, imported := range s.imports {
		for _, forbidden := range forbiddenImports {
			if below(imported, forbidden.path) && !allowedBelow[imported] {
				f.add("%s imports %s: %s", s.path, imported, forbidden.instead)
			}
		}
		// What is below test drives the program from outside; its pipelines are a Beam user's.
		if !s.test && !s.in("test") && strings.HasPrefix(imported, beamModule) && !strings.HasPrefix(imported, beamModel) {
			f.add("%s imports %s: of Beam's Go module the program uses the generated protos only (%s…)", s.path, imported, beamModel)
		}
	}
	return f
}

// forbiddenUses are names of other packages that are not used, except where it says.
var forbiddenUses = []struct {
	names   []string
	in      []string // where the rule holds; everywhere when empty
	but     []string // directories and files that may, for the reason why
	why     string
	instead string
}{
	{
		names:   []string{"log/slog.Default", "log/slog.SetDefault", "log/slog.Debug", "log/slog.Info", "log/slog.Warn", "log/slog.Error", "log/slog.Log"},
		instead: "there is no global logger: take a *slog.Logger, so that a record has its job and its worker",
	},
	{
		names: []string{"os.Exit"}, but: []string{"cmd", "test"}, why: "they hold a main and little else",
		instead: "return an error: what is deferred must run, and main alone decides the exit code",
	},
	{
		names: []string{"fmt.Print", "fmt.Printf", "fmt.Println"}, but: []string{"cmd", "test"}, why: "their standard output is a person's",
		instead: "write to an io.Writer that the caller gives: standard output is data and belongs to the command",
	},
	{
		names:   []string{"context.TODO"},
		instead: "take a context from the caller",
	},
	{
		names: clock, in: []string{"internal/shuffle", "internal/stage"}, but: []string{"internal/stage/bundle.go"},
		why:     "in a bounded job a residual is waited for inside its bundle; no event of the contract wakes a task",
		instead: "time is an input to a task: take it as an argument",
	},
	{
		names: []string{"os.Hostname"}, but: []string{"internal/kit/here", "internal/server/listen.go", "internal/harness/container/owner.go", "test"},
		why:     "they work with the name, and fail where there is none",
		instead: "where it is told to somebody it is here.Host()",
	},
	{
		names:   []string{"net/http.Get", "net/http.Post", "net/http.DefaultClient", "net/http.DefaultServeMux", "net/http.HandleFunc", "net/http.Handle"},
		instead: "the default client waits for ever and the default mux is open to every import: make one",
	},
}

func nothingForbiddenIsUsed(s source) (f findings) {
	if s.test {
		return nil
	}
	ast.Inspect(s.file, func(node ast.Node) bool {
		name := s.qualified(node)
		if name == "" {
			return true
		}
		for _, forbidden := range forbiddenUses {
			holds := len(forbidden.in) == 0 || slices.ContainsFunc(forbidden.in, s.in)
			if holds && slices.Contains(forbidden.names, name) && !slices.ContainsFunc(forbidden.but, s.in) {
				f.add("%s uses %s: %s", s.at(node.Pos()), name, forbidden.instead)
			}
		}
		return true
	})
	return f
}

// maySleep are the packages whose tests sleep rightly, each with the reason.
var maySleep = map[string]string{
	"internal/harness":         "some of its subjects are processes that do nothing",
	"internal/harness/boot":    "a process that is not ours gives no sign but by polling",
	"internal/harness/process": "both",
	"test/e2e":                 "user code takes its time",
}

// A sleep hides a race, or makes an end wait. Under testing/synctest time costs nothing and stands still.
func nothingSleeps(s source) (f findings) {
	if slices.Contains(s.imports, "testing/synctest") || s.test && maySleep[s.dir] != "" {
		return nil
	}
	ast.Inspect(s.file, func(node ast.Node) bool {
		if s.qualified(node) == "time.Sleep" {
			f.add("%s sleeps: wait for what you wait for (a channel, a condition, a timer beside ctx.Done), or test with testing/synctest", s.at(node.Pos()))
		}
		return true
	})
	return f
}

// What came from outside must not end the process; a function whose name begins with must says that it may.
func nothingPanics(s source) (f findings) {
	if s.test {
		return nil
	}
	for _, declaration := range s.file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if ok && strings.HasPrefix(strings.ToLower(function.Name.Name), "must") {
			continue
		}
		ast.Inspect(declaration, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "panic" {
				f.add("%s panics: return an error, or, where only a mistake in our own code leads here, do it in a function called must…", s.at(node.Pos()))
			}
			return true
		})
	}
	return f
}
