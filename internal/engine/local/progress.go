package local

import (
	"context"
	"fmt"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/stage"
)

const (
	// progressEvery is how often a running job says how far it is: often enough to be seen alive, and no more than a
	// dozen lines a minute.
	progressEvery = 5 * time.Second
	// askTimeout is how long a harness may take to say how far it is.
	askTimeout = time.Second
)

// tellProgress reports a job's progress until ctx ends.
func (r *run) tellProgress(ctx context.Context) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	var last float64
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		// Input that is still coming in makes the known work grow: what has been said is not taken back.
		last = max(last, r.progress(ctx))
		r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_DETAILED, fmt.Sprintf("%.0f %% done", 100*last))
	}
}

// progress is the fraction of the job's work that is done, as far as that is known: each stage counts the same.
func (r *run) progress(ctx context.Context) float64 {
	var sum float64
	for _, s := range r.stages {
		sum += s.progress(ctx)
	}
	return sum / float64(max(1, len(r.stages)))
}

// progress is the fraction of the stage's input that has been processed: by its size where it queues, with what the
// harness says of restrictions under way, otherwise by its tasks.
func (s *stageRun) progress(ctx context.Context) float64 {
	if ended := int(s.ended.Load()); s.main.queue == nil || ended == len(s.tasks) {
		return float64(ended) / float64(len(s.tasks))
	}
	bytes, done := s.main.sizes()
	if bytes == 0 {
		return 0
	}
	sum := float64(done)
	if s.plan.Input.Splittable {
		for _, t := range s.tasks {
			sum += float64(t.busy.Load()) * t.progress(ctx)
		}
	}
	fraction := min(1, sum/float64(bytes))
	if !s.main.complete() {
		fraction /= 2 // as much again may come
	}
	return fraction
}

// progress is how far the task is with its bundle.
func (t *taskRun) progress(ctx context.Context) float64 {
	asked, ok := t.task.(stage.Progresser)
	if !ok || t.busy.Load() == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	fraction, _ := asked.Progress(ctx)
	return fraction
}
