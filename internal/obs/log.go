// Package obs sets up what people watch a server by.
package obs

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
)

// NewLogger makes a logger: coloured lines for a terminal, JSON for anything else. Verbose includes debug messages.
func NewLogger(w io.Writer, verbose bool) *slog.Logger {
	if verbose {
		return newLogger(w, slog.LevelDebug)
	}
	return newLogger(w, slog.LevelInfo)
}

func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	if f, ok := w.(*os.File); ok && terminal(f) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Warnings makes a logger like NewLogger's for warnings and worse only.
func Warnings(w io.Writer) *slog.Logger { return newLogger(w, slog.LevelWarn) }
