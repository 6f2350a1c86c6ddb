package flink

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"trestle/internal/job/submission"
)

// Host is what was found from one of the cluster's hosts, by name.
type Host struct {
	Name     string
	Findings []submission.Finding
}

// probeTimeout bounds a probe's job: to be started, and to try everything.
const probeTimeout = 2 * time.Minute

// Describe says what the cluster is and has, in a line; an error is why jobs cannot be run there.
func (e *Engine) Describe(ctx context.Context) (string, error) {
	cluster, err := e.reach(ctx)
	if err != nil {
		return "", err
	}
	adapter, err := e.adapter(cluster)
	if err == nil {
		_, err = completeJar(e.cfg.Dir, adapter)
	}
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("Flink at %s: version %s, which %s is for, %s with %s, %d of them free",
		e.rest.base, cluster.Version, strings.TrimSuffix(adapter, ".jar"), count(cluster.TaskManagers, "TaskManager"), count(cluster.Slots, "slot"), cluster.Free)
	if cluster.TaskManagers == 0 {
		switch grows, err := e.grows(ctx); {
		case err != nil:
			return "", err
		case !grows:
			return "", fmt.Errorf("%s: start a TaskManager, and look at its log if it does not register", text)
		}
		text += "; it starts TaskManagers when a job asks for slots"
	}
	return text, nil
}

// grows tells whether the cluster starts TaskManagers when a job asks for slots.
func (e *Engine) grows(ctx context.Context) (bool, error) {
	configuration, err := e.rest.configuration(ctx)
	return err == nil && elastic(configuration), err
}

// Probe tries what a job needs from every TaskManager, by a job that takes all free slots for a moment. A TaskManager without a free slot
// is not reached: the number of hosts that answered, and of TaskManagers, tell. A cluster that has none, and starts one when asked, is asked for it.
func (e *Engine) Probe(ctx context.Context, p submission.Probe) (hosts []Host, taskManagers int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("it did not end within %v; did another job take its slots?", probeTimeout))
	defer cancel()
	cluster, err := e.rest.overview(ctx)
	if err != nil {
		return nil, 0, err
	}
	slots, err := e.probeSlots(ctx, cluster)
	if err != nil {
		return nil, 0, err
	}
	pack, err := json.Marshal(p)
	if err != nil {
		return nil, 0, err
	}
	jar, err := e.jar(ctx, cluster)
	if err != nil {
		return nil, 0, err
	}
	id := jobID(rand.Text())
	body := map[string]any{
		"entryClass": "trestle.flink.Probe", "jobId": id,
		"programArgsList": []string{strconv.Itoa(slots), base64.StdEncoding.EncodeToString(pack)},
	}
	if err := e.rest.call(ctx, submitTimeout, "start a probe of its hosts", http.MethodPost, "/jars/"+jar+"/run", body, nil); err != nil {
		return nil, 0, err
	}
	if err := e.awaitProbe(ctx, id); err != nil {
		return nil, 0, err
	}
	values, err := e.rest.accumulators(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	hosts, err = findings(values)
	return hosts, cluster.TaskManagers, err
}

// probeSlots is how many slots a probe is to take.
func (e *Engine) probeSlots(ctx context.Context, cluster overview) (int, error) {
	if cluster.Free > 0 {
		return cluster.Free, nil
	}
	switch grows, err := e.grows(ctx); {
	case err != nil:
		return 0, err
	case grows:
		return 1, nil
	}
	return 0, fmt.Errorf("the Flink at %s has no free slot, of %d: its hosts can be tried when a job has ended", e.rest.base, cluster.Slots)
}

// awaitProbe waits until a probe's job has ended well.
func (e *Engine) awaitProbe(ctx context.Context, id string) error {
	ticker := time.NewTicker(pollLast)
	defer ticker.Stop()
	for {
		state, err := e.rest.state(ctx, id)
		switch {
		case ctx.Err() != nil:
			return e.abandonProbe(ctx, id)
		case err != nil:
			return err
		case state == finished:
			return nil
		case state == failed || state == canceled:
			all, err := e.rest.exceptions(ctx, id)
			if err == nil && len(all) > 0 {
				err = errors.New(explain(all[0]))
			}
			return fmt.Errorf("the Flink at %s: the probe of its hosts is %s: %w", e.rest.base, state, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// abandonProbe cancels a probe that is waited for no longer. Its tasks end by themselves; one that never got its slots does not.
func (e *Engine) abandonProbe(ctx context.Context, id string) error {
	err := fmt.Errorf("the Flink at %s: the probe of its hosts is given up: %w", e.rest.base, context.Cause(ctx))
	return errors.Join(err, e.rest.call(context.WithoutCancel(ctx), callTimeout, "cancel the probe", http.MethodPatch, "/jobs/"+id+"?mode=cancel", nil, nil))
}

// findings are what the probe's tasks found, once for each host.
func findings(values map[string]string) ([]Host, error) {
	byName := map[string]Host{}
	for name, value := range values {
		if !strings.HasPrefix(name, "trestle/probe/") {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, fmt.Errorf("what %s found: %w", name, err)
		}
		var said struct {
			Host   string               `json:"host"`
			Report []submission.Finding `json:"report"`
			Error  string               `json:"error"`
		}
		if err := json.Unmarshal(b, &said); err != nil {
			return nil, fmt.Errorf("what %s found: %w", name, err)
		}
		if said.Error != "" {
			said.Report = append(said.Report, submission.Finding{Failed: true, Text: "worker: " + said.Error})
		}
		byName[said.Host] = Host{Name: said.Host, Findings: said.Report}
	}
	hosts := make([]Host, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		hosts = append(hosts, byName[name])
	}
	return hosts, nil
}
