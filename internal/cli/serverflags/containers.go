package serverflags

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"trestle/internal/harness/container"
)

// Containers are the flags of how docker environments are run.
type Containers struct {
	cfg          container.Config
	pull, memory string
}

// Bind adds the flags to a set.
func (f *Containers) Bind(set *pflag.FlagSet) {
	set.StringVar(&f.cfg.Engine, "container-engine", "", "what runs docker environments: docker, podman, nerdctl, or a path (default: the first of these on the PATH)")
	set.StringVar(&f.pull, "container-pull", string(container.PullMissing), "when images are pulled: missing, always (once a job) or never")
	set.DurationVar(&f.cfg.PullLimit, "container-pull-limit", 15*time.Minute, "how long one pull may take")
	set.StringVar(&f.cfg.Network, "container-network", "", "network of containers, as the engine's --network takes it (default on Linux: host)")
	set.StringVar(&f.cfg.Advertise, "container-advertise", "", "host[:port] under which containers reach the server, for networks other than the host's")
	set.Float64Var(&f.cfg.CPUs, "container-cpus", 0, "cores that a container may use (default: no limit)")
	set.StringVar(&f.memory, "container-memory", "", "memory that a container may use, such as 4GiB (default: no limit)")
	set.StringArrayVar(&f.cfg.Mounts, "container-mount", nil, "SOURCE:TARGET[:ro] for every container; may be repeated")
	set.StringArrayVar(&f.cfg.Instead, "container-instead", nil, "PATTERN=COMMAND: process to run instead of images with such a name, as 'apache/beam_java*=trestle boot java'; may be repeated")
	set.StringArrayVar(&f.cfg.Args, "container-arg", nil, "further argument for the engine's create command, such as --container-arg=--env=A=b; may be repeated")
}

// Config is the configuration that the flags tell.
func (f *Containers) Config() (container.Config, error) {
	cfg := f.cfg
	cfg.Pull = container.Pull(f.pull)
	if f.memory != "" {
		memory, err := humanize.ParseBytes(f.memory)
		if err != nil || memory == 0 || memory > math.MaxInt64 {
			return container.Config{}, fmt.Errorf("--container-memory %q: must be a size, such as 512MiB or 4GB", f.memory)
		}
		cfg.Memory = int64(memory)
	}
	return cfg, nil
}
