package flink

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed Smoke.java
var smokeSource []byte

// Smoke runs a small job of Flink's own in every slot, to its end; an error says what the cluster cannot do. It compiles
// the job in dir, with the JDK's tools.
func (f *Flink) Smoke(ctx context.Context, dir string) error {
	source := filepath.Join(dir, "Smoke.java")
	if err := os.WriteFile(source, smokeSource, 0o644); err != nil {
		return err
	}
	classes, jar := filepath.Join(dir, "classes"), filepath.Join(dir, "smoke.jar")
	for _, argv := range [][]string{
		{"javac", "-nowarn", "-cp", filepath.Join(f.options.Home, "lib", "*"), "-d", classes, source},
		{"jar", "cfe", jar, "Smoke", "-C", classes, "."},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	uploaded, err := f.Upload(ctx, jar)
	if err != nil {
		return err
	}
	slots := f.options.Slots * len(f.options.TaskManagers)
	id, err := f.Run(ctx, uploaded, slots, "1000000")
	if err != nil {
		return err
	}
	j, err := f.AwaitJob(ctx, id)
	if err != nil {
		return err
	}
	if j.State != "FINISHED" {
		why, err := f.Failure(ctx, id)
		return errors.Join(fmt.Errorf("the job %s is %s: %s", j.Name, j.State, why), err)
	}
	work, err := f.WorkByHost(ctx, id)
	if err != nil {
		return err
	}
	for _, h := range f.options.TaskManagers {
		if work[h.Name].Records == 0 {
			return fmt.Errorf("the TaskManager on %s did nothing of the job %s: %v", h.Name, j.Name, work)
		}
	}
	return nil
}
