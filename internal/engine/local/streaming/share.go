package streaming

import (
	"context"
	"slices"
	"sync"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
)

const (
	// shareFirst is how long a bundle has taken before a part of it is worth another task's while. The pause between two requests
	// doubles, up to shareLast, as long as they give nothing.
	shareFirst = checkpointTime / 2
	shareLast  = 5 * time.Second
)

// sharing is what lets tasks of a stage with a splittable DoFn at its mouth give parts of running restrictions to idle ones.
//
// Those that the stage sends to are told the least of what its tasks have told, by way of each of them: a task that was at the
// end of time can take a part from earlier without anybody seeing a watermark go back. A part changes hands between the same two
// snapshots of both tasks, so that each snapshot has it once: of the giver before that, of the taker after it.
type sharing struct {
	mu      sync.Mutex
	members []*member
}

// member is a task as the others of its stage know it. The sharing's lock guards it.
type member struct {
	task *task
	told int64 // what the task has told, with what it is to take
	sent int64 // what those that it sends to were told
	// wrote is the last snapshot that it has written, or is about to; passed the last one whose barrier it has passed on, before
	// which it had told cut.
	wrote, passed, cut int64
	quiet              bool
	// asked is not nil while the task is asked to split, and closed when it has answered; before that it had told floor, and
	// what it then might give holds that. silent says that it was quiet meanwhile, which counts once it has answered.
	asked  chan struct{}
	floor  int64
	silent bool
	given  []part // that it is to take
}

// part is what a task is to take.
type part struct {
	records [][]byte
	since   int64
}

// share lets a stage's tasks share work, if they can.
func (s *stageRun) share() {
	if !s.plan.Input.Splittable || len(s.tasks) < 2 || len(s.plan.SideInputs) > 0 {
		return
	}
	sh := &sharing{}
	for _, t := range s.tasks {
		taker, ok := t.task.(stage.Taker)
		if !ok {
			return
		}
		t.taker = taker
	}
	for _, t := range s.tasks {
		t.sharing, t.member = sh, &member{task: t, told: coder.MinTimestamp, sent: coder.MinTimestamp, cut: coder.MinTimestamp}
		sh.members = append(sh.members, t.member)
	}
}

// holds is the earliest of what may still come out of the member by what it has told.
func (m *member) holds() int64 {
	if m.asked != nil {
		return min(m.told, m.floor)
	}
	return m.told
}

// watermark notes what a task has told, and passes on what is now true of the stage.
func (sh *sharing) watermark(ctx context.Context, m *member, millis int64) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	m.told = millis
	for _, p := range m.given {
		m.told = min(m.told, p.since)
	}
	return sh.spread(ctx)
}

// spread passes on what is true of the stage. Ahead of a barrier, only what was true before it: who goes on from the
// snapshot may have parts again that hold that. The caller holds the lock.
func (sh *sharing) spread(ctx context.Context) error {
	for _, to := range sh.members {
		least := coder.MaxTimestamp
		for _, m := range sh.members {
			if m.passed > to.passed {
				least = min(least, m.cut)
			} else {
				least = min(least, m.holds())
			}
		}
		if least <= to.sent {
			continue
		}
		to.sent = least
		if err := to.task.tellWatermark(ctx, least); err != nil {
			return err
		}
	}
	return nil
}

// silence notes that a task is quiet, unless it is to take something, after which it says so again.
func (sh *sharing) silence(m *member) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case len(m.given) > 0:
	case m.asked != nil:
		m.silent = true
	default:
		m.quiet = true
		m.task.job.quiet()
	}
}

// write waits until the task is not asked to split any more, and has it take no part of others that have not come as far: it
// is about to write a snapshot.
func (sh *sharing) write(ctx context.Context, m *member, snapshot int64) error {
	for {
		sh.mu.Lock()
		asked := m.asked
		if asked == nil {
			m.wrote = snapshot
			sh.mu.Unlock()
			return nil
		}
		sh.mu.Unlock()
		select {
		case <-asked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pass passes a barrier on.
func (sh *sharing) pass(ctx context.Context, m *member, e event) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	m.passed, m.cut = e.millis, m.holds()
	if err := m.task.passOn(ctx, e); err != nil {
		return err
	}
	return sh.spread(ctx)
}

// take is the next that the task is to take, which is from now on its own.
func (sh *sharing) take(m *member) (p part, ok bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(m.given) == 0 {
		return p, false
	}
	p, m.given = m.given[0], m.given[1:]
	return p, true
}

// gets tells whether there is something for the task to take.
func (sh *sharing) gets(m *member) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return len(m.given) > 0
}

// split asks a busy task for a part of what it does, if another is idle, and hands it to that one. given is whether there was
// something.
func (sh *sharing) split(ctx context.Context, m *member) (given bool, err error) {
	to := sh.ask(m)
	if to == nil {
		return false, nil
	}
	records, err := m.task.taker.Split(ctx)
	sh.answered(m, to, records)
	if err != nil {
		return false, err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return len(records) > 0, sh.spread(ctx)
}

// ask finds a taker for what a task is about to be asked for; nil when there is none.
func (sh *sharing) ask(m *member) *member {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// A task that is about to write its part of a snapshot may have written it already.
	if m.quiet || m.asked != nil || len(m.given) > 0 || m.wrote != m.passed {
		return nil
	}
	i := slices.IndexFunc(sh.members, func(to *member) bool {
		return to != m && to.wrote == m.wrote && to.passed == m.passed && len(to.given) == 0 && to.asked == nil && to.task.idle()
	})
	if i < 0 {
		return nil
	}
	m.asked, m.floor = make(chan struct{}), m.told
	return sh.members[i]
}

// answered hands over what a task has given. If the taker has gone on to another snapshot meanwhile, the giver takes it back,
// which has not: it waits for this.
func (sh *sharing) answered(m, to *member, records [][]byte) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	close(m.asked)
	m.asked = nil
	if len(records) > 0 {
		if to.wrote != m.wrote {
			to = m
		}
		to.given = append(to.given, part{records, m.floor})
		to.told = min(to.told, m.floor)
		if to.quiet {
			to.quiet = false
			to.task.job.unquiet()
		}
	}
	if m.silent {
		m.silent = false
		if len(m.given) == 0 {
			m.quiet = true
			m.task.job.quiet()
		}
	}
	to.task.inbox.wake()
}

// idle tells whether a task has nothing to do right now.
func (t *task) idle() bool {
	return t.began.Load() == 0 && t.inbox.spool.Len() == 0
}

// takeGiven has the task go on with what others have given it.
func (t *task) takeGiven(ctx context.Context) (took bool, err error) {
	if t.sharing == nil {
		return false, nil
	}
	for t.sharing.gets(t.member) {
		if err := t.room(ctx); err != nil {
			return took, err
		}
		t.happened()
		if err := t.tick(ctx); err != nil {
			return took, err
		}
		// Nothing comes between: from now on, the task holds what the part may put out.
		p, ok := t.sharing.take(t.member)
		if !ok {
			break
		}
		took = true
		if err := t.call(func() error { return t.taker.Take(ctx, p.records, p.since) }); err != nil {
			return took, err
		}
	}
	return took, nil
}

// sharer is when a busy task is asked next.
type sharer struct {
	next  time.Time
	pause time.Duration
}

// ask asks a task that has been busy for a while to give a part to an idle one, unless the job is being drained: then there is little
// left to do.
func (s *sharer) ask(ctx context.Context, t *task, taken time.Duration) (given bool, err error) {
	now := t.job.cfg.Now()
	if t.sharing == nil || taken < shareFirst || now.Before(s.next) {
		return false, nil
	}
	select {
	case <-t.job.cfg.Draining:
		return false, nil
	default:
	}
	if given, err = t.sharing.split(ctx, t.member); err != nil {
		return false, err
	}
	s.pause = min(2*s.pause, shareLast)
	if given {
		s.pause = shareFirst
	}
	s.next = t.job.cfg.Now().Add(s.pause)
	return given, nil
}
