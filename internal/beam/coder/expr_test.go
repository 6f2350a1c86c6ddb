package coder

import (
	"fmt"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// parse reads a coder as a person writes it, kv(bytes,iterable(varint)), into coders; its id is the text itself.
func parse(coders map[string]*pipepb.Coder, text string) (id string) {
	text = strings.ReplaceAll(text, " ", "")
	name, args, _ := strings.Cut(text, "(")
	c := &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: "beam:coder:" + name + ":v1"}}
	args = strings.TrimSuffix(args, ")")
	for start, depth, i := 0, 0, 0; i <= len(args) && args != ""; i++ {
		switch {
		case i == len(args) || args[i] == ',' && depth == 0:
			c.ComponentCoderIds = append(c.ComponentCoderIds, parse(coders, args[start:i]))
			start = i + 1
		case args[i] == '(':
			depth++
		case args[i] == ')':
			depth--
		}
	}
	coders[text] = c
	return text
}

// failer is what helpers need of a test, a benchmark, a fuzz test or a property.
type failer interface {
	Helper()
	Fatal(...any)
}

func mustCompile(t failer, text string) *Coder {
	t.Helper()
	coders := map[string]*pipepb.Coder{}
	c, err := Compile(coders, parse(coders, text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustCompileWindowed(t failer, text string) *Windowed {
	t.Helper()
	coders := map[string]*pipepb.Coder{}
	w, err := CompileWindowed(coders, parse(coders, text))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// unescape reads bytes as scenarios write them: text as it is, \xx for the byte with that hexadecimal value.
func unescape(text string) ([]byte, error) {
	var b []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b = append(b, text[i])
			continue
		}
		var v byte
		if i+2 >= len(text) {
			return nil, fmt.Errorf("%q: two hexadecimal digits must follow a backslash", text)
		}
		if _, err := fmt.Sscanf(text[i+1:i+3], "%02x", &v); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		b, i = append(b, v), i+2
	}
	return b, nil
}

// coderLines reads coders, one a line: id urn component…
func coderLines(input string) map[string]*pipepb.Coder {
	coders := map[string]*pipepb.Coder{}
	for line := range strings.Lines(input) {
		f := strings.Fields(line)
		coders[f[0]] = &pipepb.Coder{
			Spec:              &pipepb.FunctionSpec{Urn: "beam:coder:" + f[1] + ":v1"},
			ComponentCoderIds: f[2:],
		}
	}
	return coders
}
