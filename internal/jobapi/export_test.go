package jobapi

import (
	"os"

	"trestle/internal/store/journal"
)

// WithWrap is cfg with journals on files that wrap makes.
func WithWrap(cfg Config, wrap func(*os.File) journal.File) Config {
	cfg.wrap = wrap
	return cfg
}

// WithQuota is cfg with another maxLog.
func WithQuota(cfg Config, bytes int64) Config {
	cfg.quota = bytes
	return cfg
}

var (
	Bounded = bounded
	Slug    = slug
	JobName = jobName
)

// Sealed tells whether nothing holds on to a job any more.
func (s *Service) Sealed(id string) bool {
	e, err := s.find(id)
	if err != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sealed
}
