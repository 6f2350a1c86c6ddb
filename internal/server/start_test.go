package server

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trestle/test/leaks"
)

// TestStartLeavesNothing: a start that fails when it has the data folder gives it up, and the next one succeeds.
func TestStartLeavesNothing(t *testing.T) {
	cfg := Config{Listen: "127.0.0.1:0", Data: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	left := filepath.Join(cfg.Data, "running", "left")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	failing := cfg
	failing.remove = func(path string) error {
		return &os.PathError{Op: "unlinkat", Path: path, Err: errors.New("device or resource busy")}
	}
	s, err := Start(t.Context(), failing)
	if err == nil {
		t.Fatal("it started", s.Stop(t.Context()))
	}
	if !strings.Contains(err.Error(), "earlier server left: unlinkat "+left) {
		t.Errorf("it said %v", err)
	}
	s, err = Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what an earlier server left is there: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	leaks.None(t)
}
