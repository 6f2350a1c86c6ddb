package lint

import (
	"go/ast"
	"slices"
	"strings"
)

const module = "trestle"

// tiers are the rooms from the ground up, as the design has them. A room imports rooms of lower tiers only.
var tiers = [][]string{
	{"kit", "config", "obs"},
	{"beam"},
	{"plan"},
	{"shuffle", "store", "job"},
	{"fnapi", "artifact"},
	{"stage", "harness"}, // which do not know each other: a stage is given a session and never starts a harness
	{"engine", "worker", "jobapi"},
	{"server", "console", "cli"},
	{"cmd"},
}

// sideways are the imports within one tier that are right, by room and package, with the reason.
var sideways = map[[2]string]string{
	{"jobapi", "engine"}:  "a job is submitted through the engine's interface; engines know nothing of the job API",
	{"cli", "server"}:     "serve and run start a server",
	{"server", "console"}: "the server opens the dashboard's listener",
}

// room is the part of the design's house that a directory belongs to, "" for what is not in it (tests, tools).
func room(dir string) string {
	if below(dir, "cmd") {
		return "cmd"
	}
	rest, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func tier(room string) int {
	return slices.IndexFunc(tiers, func(rooms []string) bool { return slices.Contains(rooms, room) })
}

// A test may import what it likes, but nobody imports a test.
func importsRunDownward(s source) (f findings) {
	from := room(s.dir)
	if s.test || from == "" || from == "lint" {
		return nil
	}
	if tier(from) < 0 {
		f.add("%s: the room internal/%s is not in the design: put the package into one that is, or give the room its place in tiers", s.path, from)
		return f
	}
	for _, imported := range s.imports {
		dir, ours := strings.CutPrefix(imported, module+"/")
		to := room(dir)
		switch {
		case !ours || to == from:
		case to == "" || tier(to) < 0:
			f.add("%s imports %s, which is no part of the program", s.path, imported)
		case tier(to) < tier(from) || sideways[[2]string{from, strings.TrimPrefix(dir, "internal/")}] != "":
		case tier(to) == tier(from):
			f.add("%s imports %s, which stands beside it: let the room above hand it over (an interface where it is used, wired in server)", s.path, imported)
		default:
			f.add("%s imports %s, which stands above it: imports run downward (%s); move what is shared down, or take an interface",
				s.path, imported, strings.Join(slices.Concat(tiers...), " < "))
		}
	}
	return f
}

// pure are the packages that hold decisions only: events in, decisions out.
var pure = []string{"internal/beam", "internal/plan", "internal/job"}

// impure are the packages, and all below them, by which the world comes in.
var impure = []string{"net", "os", "io/ioutil", "sync", "syscall", "log", "golang.org/x/sys", "golang.org/x/sync", "google.golang.org/grpc"}

var clock = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.Tick", "time.NewTimer", "time.NewTicker"}

func purePackagesArePure(s source) (f findings) {
	if s.test || !slices.ContainsFunc(pure, s.in) {
		return nil
	}
	for _, imported := range s.imports {
		if slices.ContainsFunc(impure, func(p string) bool { return below(imported, p) }) {
			f.add("%s imports %s: %s is pure (no goroutine, socket, file or clock); return what is to be done, and let a room above do it", s.path, imported, s.dir)
		}
	}
	ast.Inspect(s.file, func(node ast.Node) bool {
		if _, ok := node.(*ast.GoStmt); ok {
			f.add("%s starts a goroutine: %s is pure; let a room above decide what runs side by side", s.at(node.Pos()), s.dir)
		}
		if name := s.qualified(node); slices.Contains(clock, name) {
			f.add("%s uses %s: %s is pure; take the time as an argument", s.at(node.Pos()), name, s.dir)
		}
		return true
	})
	return f
}
