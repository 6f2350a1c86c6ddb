package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// refusedName is a file in the folder of a job's snapshots that says why the job has failed, for who finds the folder. An earlier
// version of Trestle removes the snapshots of a job that is over where there is no such file.
const refusedName = "refused"

// noteFailure notes why a job has failed whose snapshots stay.
func noteFailure(folder string, why error) error {
	if err := os.WriteFile(filepath.Join(folder, refusedName), []byte(why.Error()+"\n"), 0o600); err != nil {
		return fmt.Errorf("note beside the job's snapshots why it has failed: %w", err)
	}
	return nil
}

// keptHint says what can be done with the snapshots of a job that has failed.
func keptHint(folder, id string) string {
	return fmt.Sprintf("Its snapshots are kept in %s as long as the job is listed (--keep). When the cause is mended, `trestle jobs %s --resume` has the job go on from them; if they are not wanted, remove the folder.", folder, id)
}

// Sweep removes the snapshots of jobs that are over: what a server leaves that is killed between a job's end and the end of
// its clean-up. over tells whether a job has come to its end for good, so that it cannot be resumed; known whether there is anything
// of it at all. It is for a server whose jobs are known, and may be called at any time then: a job is known before it has
// snapshots. The error says what could not be removed.
func (e *Engine) Sweep(over, known func(job string) bool) error {
	folders, err := os.ReadDir(e.cfg.Snapshots)
	if errors.Is(err, fs.ErrNotExist) || e.cfg.Snapshots == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("snapshots of jobs that are over: %w", err)
	}
	var errs []error
	for _, f := range folders {
		if known(f.Name()) && !over(f.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(e.cfg.Snapshots, f.Name())); err != nil {
			errs = append(errs, fmt.Errorf("snapshots of a job that is over: %w", err))
			continue
		}
		e.cfg.Log.Info("removed the snapshots of a job that is over", "job", f.Name())
	}
	return errors.Join(errs...)
}
