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
	Refusal     = refusal
	EncodedSize = encodedSize
	Bounded     = bounded
	Slug        = slug
	JobName     = jobName
)
