package harness

import (
	"context"
	"log/slog"
	"time"

	"trestle/internal/harness/container"
)

// sweepLimit bounds a sweep. Removing a container takes a tenth of a second.
const sweepLimit = 5 * time.Minute

// Sweep begins to remove the containers that killed processes of this host have left, in the background, because an
// engine may take its time. The caller calls stop once, which ends it and returns when it has ended.
func Sweep(cfg container.Config, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), sweepLimit)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		removed, err := container.Sweep(ctx, cfg)
		if removed > 0 {
			log.Info("removed containers that an earlier process left", "number", removed)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case cfg.Engine == "":
			// An engine that nobody asked for and that does not answer is news only to those who will use it, and they
			// read it when they submit.
			log.Debug("look for containers that an earlier process left", "error", err)
		default:
			log.Warn("look for containers that an earlier process left", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
