package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// refusedName is a file in the folder of a job's snapshots that says why the job could not go on from them. They outlive its
// failure: another version of Trestle may read them.
const refusedName = "refused"

// refuse notes why a job cannot go on from its snapshots, which then stay.
func refuse(folder string, why error) error {
	if err := os.WriteFile(filepath.Join(folder, refusedName), []byte(why.Error()+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the snapshots in %s: %w", folder, err)
	}
	return nil
}

// Sweep removes the snapshots of jobs that are over: what a server leaves that is killed between a job's end and the end of
// its clean-up. ended tells whether a job has come to its end, known whether there is anything of it at all; snapshots that a
// job could not go on from stay as long as it is known. It is for a server whose jobs are known, and may be called at any
// time then: a job is known before it has snapshots. The error says what could not be removed.
func (e *Engine) Sweep(ended, known func(job string) bool) error {
	folders, err := os.ReadDir(e.cfg.Snapshots)
	if errors.Is(err, fs.ErrNotExist) || e.cfg.Snapshots == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("snapshots of jobs that are over: %w", err)
	}
	var errs []error
	for _, f := range folders {
		folder := filepath.Join(e.cfg.Snapshots, f.Name())
		if known(f.Name()) {
			if !ended(f.Name()) {
				continue
			}
			if _, err := os.Stat(filepath.Join(folder, refusedName)); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err := os.RemoveAll(folder); err != nil {
			errs = append(errs, fmt.Errorf("snapshots of a job that is over: %w", err))
			continue
		}
		e.cfg.Log.Info("removed the snapshots of a job that is over", "job", f.Name())
	}
	return errors.Join(errs...)
}
