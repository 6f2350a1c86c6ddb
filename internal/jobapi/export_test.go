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

var (
	Refusal     = refusal
	EncodedSize = encodedSize
	Bounded     = bounded
	Slug        = slug
	JobName     = jobName
)
