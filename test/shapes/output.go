package shapes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterDoFn(&toLine{})
	beam.RegisterDoFn(&writeLines{})
	beam.RegisterDoFn(&fault{})
}

// Faults are what the pipelines' operations named fault do, each one time in a run, at some element. Otherwise they pass on
// what they get.
type Faults int

const (
	None Faults = iota
	// Fail fails.
	Fail
	// Die kills the harness.
	Die
)

// fault does what is asked for at an element, once: the file Marker tells that it was done.
type fault struct {
	Kind   Faults
	Marker string
	At     int
}

func (f *fault) ProcessElement(k string, v int) (string, int, error) {
	if f.Kind == None || v%5 != f.At%5 {
		return k, v, nil
	}
	switch file, err := os.OpenFile(f.Marker, os.O_CREATE|os.O_EXCL, 0o600); {
	case errors.Is(err, fs.ErrExist):
		return k, v, nil
	case err != nil:
		return k, v, err
	default:
		if err := file.Close(); err != nil {
			return k, v, err
		}
	}
	if f.Kind == Die {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return k, v, err
		}
		select {} // until the signal arrives
	}
	return k, v, fmt.Errorf("injected failure %s", filepath.Base(f.Marker))
}

type toLine struct{ Leaf int }

func (f *toLine) ProcessElement(k string, v int) string { return line(f.Leaf, pair{k, v}) }

// outputName is the file with the output.
const outputName = "output"

// writeLines writes a group into a file. It may come again, with the same group: after a failure.
type writeLines struct{ Path string }

func (f *writeLines) ProcessElement(_ int, lines func(*string) bool) error {
	all := gather(lines)
	slices.Sort(all)
	text := strings.Join(all, "\n")
	before, err := os.ReadFile(f.Path)
	switch {
	case err == nil && string(before) != text:
		return fmt.Errorf("two groups of one key in one window: one has %d values, another %d", strings.Count(string(before), "\n")+1, len(all))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	written := f.Path + ".new"
	if err := os.WriteFile(written, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(written, f.Path)
}

// Read is the output of a pipeline that has run: what [Pipeline.Output] says, if all is well.
func Read(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, outputName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a group of nothing is none
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(string(text), "\n"), nil
}
