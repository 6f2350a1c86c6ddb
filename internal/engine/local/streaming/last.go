package streaming

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"trestle/internal/kit/sealed"
)

// lastName is the file beside a job's snapshots with the number of the last one. It tells a job that has not taken a snapshot yet,
// and begins, from one whose snapshots are gone, or the last of them.
const lastName = "last"

const (
	lastMagic   = "trestle last snapshot "
	lastVersion = 1
)

// writeLast notes the number of the last snapshot, once it is there and before anyone is told of it. A process that is killed in
// between leaves the number of the one before, which is as good.
func writeLast(folder string, number uint64) error {
	path := filepath.Join(folder, lastName)
	b := sealed.Encode(lastMagic, lastVersion, strconv.AppendUint(nil, number, 10))
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readLast is the number of the last snapshot that the job is known to have taken; 0 when it has taken none, or an earlier version
// of Trestle took it. The error is an errDamaged, an errFormat, or that of reading the file.
func readLast(folder string) (uint64, error) {
	path := filepath.Join(folder, lastName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	version, body, err := sealed.Decode(lastMagic, b)
	if err == nil && version != lastVersion {
		return 0, fmt.Errorf("%s has format %d, this version of Trestle reads %d: %w", path, version, lastVersion, errFormat)
	}
	number, bad := strconv.ParseUint(string(body), 10, 64)
	if err == nil {
		err = bad
	}
	if err != nil {
		return 0, fmt.Errorf("%s, which says which snapshot is the last, is damaged: %w: %w; who knows which one is may remove it", path, err, errDamaged)
	}
	return number, nil
}
