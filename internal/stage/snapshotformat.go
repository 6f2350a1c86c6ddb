package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// snapshotVersion is the format of all that a task writes into a snapshot: which files there are, the keys and values of its
// store (docs/formats/state.md), the states of groupings (docs/formats/grouping.md).
const snapshotVersion = 7

// formatName is the file of a snapshot with its format.
const formatName = "format"

const formatLine = "trestle task %d\n"

// ErrSnapshot is what Open's error wraps when what the task is to begin with is not a snapshot's, or of a format that it does not
// read; an error of reading it is none of these.
var ErrSnapshot = errors.New("a snapshot cannot be read")

// writeFormat says in which format a snapshot is.
func writeFormat(directory string) error {
	return os.WriteFile(filepath.Join(directory, formatName), fmt.Appendf(nil, formatLine, snapshotVersion), 0o600)
}

// checkFormat tells whether a snapshot is in a format that can be read.
func checkFormat(directory string) error {
	path := filepath.Join(directory, formatName)
	line, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: its format is unknown: %w", ErrSnapshot, err)
	}
	if err != nil {
		return err // it may be read another time
	}
	var version int
	if n, err := fmt.Sscanf(string(line), formatLine, &version); n != 1 || err != nil || string(line) != fmt.Sprintf(formatLine, version) {
		return fmt.Errorf("%w: %s does not say which format it has", ErrSnapshot, path)
	}
	if version != snapshotVersion {
		return fmt.Errorf("%w: %s says format %d, this version of Trestle reads %d", ErrSnapshot, path, version, snapshotVersion)
	}
	return nil
}
