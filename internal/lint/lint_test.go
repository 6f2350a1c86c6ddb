package lint

import (
	"fmt"
	"strings"
	"testing"
)

// findings are what a rule has against a file, each with the place, the rule, and what to do instead.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

var rules = map[string]func(source) findings{
	"imports run downward":         importsRunDownward,
	"pure packages are pure":       purePackagesArePure,
	"imports are the project's":    importsAreTheProjects,
	"nothing forbidden is used":    nothingForbiddenIsUsed,
	"nothing sleeps":               nothingSleeps,
	"nothing panics":               nothingPanics,
	"packages are about something": packagesAreAboutSomething,
	"files are short and finished": filesAreShortAndFinished,
}

func TestRules(t *testing.T) {
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, s := range sources(t) {
				for _, found := range rule(s) {
					t.Error(found)
				}
			}
		})
	}
}

// A rule that finds nothing may be a rule that looks at nothing: each is shown something to find.
func TestRulesFind(t *testing.T) {
	for _, test := range []struct {
		path, code string
		want       string // "" when there is nothing to find
	}{
		{"internal/store/kv/kv.go", `import "trestle/internal/stage"`, "stands above it"},
		{"internal/stage/stage.go", `import "trestle/internal/harness"`, "stands beside it"},
		{"internal/stage/stage.go", `import "trestle/test/wordcount"`, "no part of the program"},
		{"internal/stage/stage.go", `import "trestle/internal/fnapi"`, ""},
		{"internal/jobapi/service.go", `import "trestle/internal/engine"`, ""},
		{"internal/jobapi/service.go", `import "trestle/internal/engine/local"`, "stands beside it"},
		{"internal/attic/attic.go", ``, "internal/attic is not in the design"},
		{"internal/common/common.go", ``, "about nothing"},
		{"internal/plan/fuse/fuse.go", `import "os/exec"`, "is pure"},
		{"internal/plan/fuse/fuse.go", `func f() { go f() }`, "starts a goroutine"},
		{"internal/beam/timer/timer.go", `import "time"; var start = time.Now()`, "take the time as an argument"},
		{"internal/harness/pool.go", `import "time"; var start = time.Now()`, ""},
		{"internal/shuffle/sort.go", `import clock "time"; var start = clock.Now()`, "time is an input"},
		{"internal/server/server.go", `import "log"`, "global logger"},
		{"internal/server/server.go", `import "log/slog"; var log = slog.Default()`, "no global logger"},
		{"internal/server/server.go", `import "os"; func f() { os.Exit(1) }`, "return an error"},
		{"internal/server/server.go", `import "time"; func f() { time.Sleep(1) }`, "wait for what you wait for"},
		{"internal/server/server.go", `func f() { panic(1) }`, "panics"},
		{"internal/server/server.go", `var f = func() { panic(1) }`, "panics"},
		{"internal/server/server.go", `func mustHold() { panic(1) }`, ""},
		{"internal/stage/stage_test.go", `import "github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/exec"`, "not borrowed"},
		{"internal/stage/stage.go", `import "github.com/apache/beam/sdks/v2/go/pkg/beam"`, "the generated protos only"},
		{"internal/stage/stage.go", `import "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"`, ""},
		{"internal/server/server.go", "// TO" + "DO: later", "do it"},
		{"internal/server/server.go", strings.Repeat("\n", long), "split it by idea"},
	} {
		s := parse(t, test.path, []byte("package p\n"+test.code+"\n"))
		var all findings
		for _, rule := range rules {
			all = append(all, rule(s)...)
		}
		switch {
		case test.want == "" && len(all) > 0:
			t.Errorf("%s with %q: found %q, and nothing is wrong", test.path, test.code, all)
		case test.want != "" && !strings.Contains(strings.Join(all, "\n"), test.want):
			t.Errorf("%s with %q: found %q, not %q", test.path, test.code, all, test.want)
		}
	}
	for text, want := range map[string]bool{
		`dir := "/wo` + `rk/main"`: true, "cd /ro" + "ot/go": true, "https://proxy.gol" + "ang.org": true,
		"the net/wo" + "rk/load": false, "/usr/lib": false,
	} {
		if got := elsewhere.MatchString(text); got != want {
			t.Errorf("%q holds on one machine only: %v, want %v", text, got, want)
		}
	}
}
