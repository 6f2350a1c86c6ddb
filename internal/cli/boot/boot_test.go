package boot

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// A command line that lacks something, or has too much, is refused with all that is wrong with it; help needs nothing.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		line string
		errs []string
		out  []string
	}{
		{line: "go", errs: []string{"--id", "--provision_endpoint"}},
		{line: "python --id=w", errs: []string{"--provision_endpoint"}},
		{line: "java --heap", errs: []string{"--heap"}},
		{line: "python --classpath=x", errs: []string{"--classpath"}},
		{line: "ruby", errs: []string{"ruby"}},
		{line: "go extra", errs: []string{"extra"}},
		{line: "", out: []string{"python", "java", "go", `{"command": "trestle boot python"}`}},
		{line: "java --help", out: []string{"--classpath", "--heap", "--jvm-arg", "--java", "--semi_persist_dir", "(required)"}},
	} {
		cmd := NewCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(strings.Fields(c.line))
		err := cmd.ExecuteContext(context.Background())
		if (err != nil) != (len(c.errs) > 0) {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		for _, want := range c.errs {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q lacks %q", c.line, err, want)
			}
		}
		for _, want := range c.out {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: output lacks %q:\n%s", c.line, want, out.String())
			}
		}
	}
}
