package container

import (
	"context"
	"errors"
	"fmt"
)

// Sweep removes the containers of processes of this host that are gone, kill -9 included, and returns how many it
// removed. Those of living processes, of other hosts and of other namespaces of processes are left alone. No engine on
// the host is no error: then there is nothing to sweep. Where there is one and nothing was left, it is asked one question.
func Sweep(ctx context.Context, cfg Config) (int, error) {
	e, err := locate(cfg)
	if errors.Is(err, ErrNone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	me, err := self()
	if err != nil {
		return 0, err
	}
	ids, err := e.owned(ctx)
	if err != nil {
		return 0, err
	}
	removed := 0
	var errs []error
	for _, id := range ids {
		label, err := e.ask(ctx, "inspect", "--type=container", `--format={{index .Config.Labels "`+ownerLabel+`"}}`, id)
		if err != nil {
			if there, silent := e.has(ctx, id); silent == nil && !there {
				continue // its owner was quicker
			}
			errs = append(errs, fmt.Errorf("container %s: %w", id, err))
			continue
		}
		o, err := parseOwner(label)
		if err != nil || !o.gone(me, started) {
			continue // not surely ours to remove
		}
		if err := e.remove(id); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
