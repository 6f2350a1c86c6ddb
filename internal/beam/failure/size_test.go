package failure

import (
	"strings"
	"testing"
)

// TestLarge: texts of megabytes, as hostile as they come, are read in proportion to their size, to reports as small
// as any; and what is at the ends of a text is found.
func TestLarge(t *testing.T) {
	const size = 2 << 20
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	traceback := "Traceback (most recent call last):\n  File \"/srv/p.py\", line 1, in f\n    g()\n"
	for name, c := range map[string]struct{ text, summary, transform string }{
		"one line":       {fill("x"), "xxx", ""},
		"blank lines":    {fill("\n"), "… 1835008 bytes left out …", ""},
		"long element":   {traceback + "ValueError: " + fill("element ") + " [while running 'Map(f)']", "ValueError: element", "Map(f)"},
		"long message":   {traceback + "ValueError: bad\n" + fill("line\n") + " [while running 'Map(f)']", "ValueError: bad", "Map(f)"},
		"tracebacks":     {fill(traceback + "E: x\n\n" + pythonContext + "\n\n"), "E: x", ""},
		"steps":          {traceback + "E: x" + fill(" [while running 'a"), "E: x", ""},
		"causes":         {"a.B: c\n\tat a.B(C.java:1)\n" + fill("Caused by: d.E: f\n"), "a.B: c", ""},
		"wrappers":       {fill("Caused by: java.util.concurrent.ExecutionException: x\n\tat org.apache.beam.sdk.X.y(Z.java:1)\n"), "java.util.concurrent.ExecutionException: x", ""},
		"java frames":    {"a.B: c\n" + fill("\tat a.B(C.java:1)\n\tat a.C(C.java:1)\n"), "a.B: c", ""},
		"go causes":      {"while executing Up for Plan[x]:\n" + fill("\tcaused by:\nx\n"), "x", ""},
		"go frames":      {"panic: x goroutine 1 [running]:\n" + fill("reflect.Value.Call((((\n\t/a.go:1\n"), "panic: x", ""},
		"go panics":      {"panic: x goroutine 1 [running]:\n" + fill("panic(\n"), "panic: x", ""},
		"script frames":  {"Error: x\n" + fill("    at f (/a.js:1:2)\n"), "Error: x", ""},
		"invalid UTF-8":  {fill("\xff"), "\uFFFD", ""},
		"exception tree": {fill("  + Exception Group Traceback (most recent call last):\n  | E: x\n  +-+---------------- 1 ----------------\n"), "E: x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := Parse(c.text)
			check(t, c.text, r, r.Text(nil))
			if !strings.HasPrefix(r.Summary, c.summary) {
				t.Errorf("summary %q, want %q…", r.Summary, c.summary)
			}
			if r.Transform != c.transform {
				t.Errorf("transform %q, want %q", r.Transform, c.transform)
			}
		})
	}
}

// TestText: a report that was not made by Parse is bounded as well, and names are only asked for a transform.
func TestText(t *testing.T) {
	names := func(id string) string {
		if id == "" {
			t.Error("asked for the name of no transform")
		}
		return map[string]string{"e4": "Orders/main.parse"}[id]
	}
	for _, c := range []struct {
		report Report
		want   string
	}{
		{Report{Summary: "E: x"}, "E: x"},
		{Report{Summary: "E: x", Transform: "e4"}, "E: x\nin transform \"Orders/main.parse\""},
		{Report{Summary: "E: x", Transform: "e5"}, "E: x\nin transform \"e5\""},
		{Report{Summary: "E: x", Trace: []string{"E: x", "y"}}, "E: x\ny"},
		{Report{Summary: "E: x", Transform: "e5", Trace: []string{"E: x", "y"}}, "E: x\nin transform \"e5\"\nE: x\ny"},
		{Report{Summary: "E:\nx", Trace: []string{"y\nz"}}, "E: x\ny z"},
	} {
		if got := c.report.Text(names); got != c.want {
			t.Errorf("%+v: %q, want %q", c.report, got, c.want)
		}
	}
	long := Report{Summary: "E", Transform: strings.Repeat("t", 1000), Trace: strings.Split(strings.Repeat("line\n", 1000), "\n")}
	check(t, "x", long, long.Text(nil))
}
