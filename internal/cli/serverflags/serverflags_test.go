package serverflags

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// TestKeep: days, Go's durations, and 0 for ever, which a server's configuration has as a negative number.
func TestKeep(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 30 * 24 * time.Hour, "30d": 30 * 24 * time.Hour, "1d": 24 * time.Hour, "12h30m": 12*time.Hour + 30*time.Minute, "0": -1, "0d": -1,
		"-1h": 0, "-1d": 0, "d": 0, "1.5d": 0, "99999999d": 0, "long": 0,
	} {
		var f Flags
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Bind(set)
		if text != "" {
			if err := set.Set("keep", text); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := f.Config()
		if refused := err != nil && strings.Contains(err.Error(), "--keep"); cfg.Keep != want || refused != (want == 0) {
			t.Errorf("--keep %q: %v, %v; want %v", text, cfg.Keep, err, want)
		}
	}
}

// TestSizes: what jobs keep in memory, here and in workers.
func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"": 256 << 20, "64MiB": 64 << 20, "0": 0, "-1": 0, "much": 0} {
		var f Flags
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Bind(set)
		if text != "" {
			if err := set.Set("worker-memory", text); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := f.Config()
		if refused := err != nil && strings.Contains(err.Error(), "--worker-memory"); cfg.WorkerMemory != want || refused != (want == 0) {
			t.Errorf("--worker-memory %q: %v, %v; want %v", text, cfg.WorkerMemory, err, want)
		}
	}
}
