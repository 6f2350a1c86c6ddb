package gopipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/goleak"

	"trestle/internal/server"
	"trestle/test/leaks"
)

// Server is a server in this process, on a port of its own.
type Server struct {
	*server.Server
	data  string
	leaks goleak.Option
}

// stopTimeout is how long a server may take to stop what runs.
const stopTimeout = 30 * time.Second

// Start starts a server. The configuration needs a data folder and a logger.
func Start(ctx context.Context, cfg server.Config) (*Server, error) {
	leaks := goleak.IgnoreCurrent()
	cfg.Listen = "127.0.0.1:0"
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Server{s, cfg.Data, leaks}, nil
}

// Close stops the server. An error says why it did not stop as it should, or what is left of it: files of jobs, their
// memory, goroutines that began since Start and are not in ignore.
func (s *Server) Close(ignore ...goleak.Option) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	if err := s.Stop(ctx); err != nil {
		errs = append(errs, fmt.Errorf("stop: %w", err))
	}
	return errors.Join(append(errs, s.Left(), leaks.Find(append(ignore, s.leaks)...))...)
}

// Left is an error if jobs have left files or hold memory; none may be running.
func (s *Server) Left() error {
	var errs []error
	files, err := os.ReadDir(filepath.Join(s.data, "running"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if len(files) > 0 {
		errs = append(errs, fmt.Errorf("left of the jobs: %v", files))
	}
	if n := s.Held(); n != 0 {
		errs = append(errs, fmt.Errorf("jobs that have ended hold %d bytes of the server's memory", n))
	}
	return errors.Join(errs...)
}
