package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errOver = errors.New("the job is over")

// TestNothingUnwantedIsWritten: what takes long fails when nothing of a store is wanted any more, and says why; the store can be closed, and
// nothing of it stays.
func TestNothingUnwantedIsWritten(t *testing.T) {
	f := newFixture(t)
	a, over := f.open("a", nil, nil, nil)
	over.Put([]byte("01"), bytes.Repeat([]byte("v"), 1000))
	first := f.checkpoint(a, over, "first")
	b, over := f.open("b", nil, nil, nil)
	over.Put([]byte("02"), bytes.Repeat([]byte("v"), 1000))
	second := f.checkpoint(b, over, "second")

	ctx, cancel := context.WithCancelCause(t.Context())
	s, err := Open(ctx, filepath.Join(f.dir, "new"), f.cache, slog.New(slog.DiscardHandler), []string{first, second}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := s.NewOverlay()
	for i := range 100 {
		o.Put(fmt.Appendf(nil, "%03d", i), bytes.Repeat([]byte("v"), batchBytes/8))
	}
	cancel(errOver)
	if err := o.Commit(); !errors.Is(err, errOver) {
		t.Errorf("a commit of more than fits into memory: %v", err)
	}
	if err := s.Checkpoint(filepath.Join(f.dir, "third")); !errors.Is(err, errOver) {
		t.Errorf("a checkpoint: %v", err)
	}
	if err := errors.Join(o.Close(), s.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	_, err = Open(ctx, filepath.Join(f.dir, "new"), f.cache, slog.New(slog.DiscardHandler), []string{first, second}, nil, nil)
	if !errors.Is(err, errOver) {
		t.Errorf("opened with what two checkpoints have: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store's folder: %v", err)
	}
}

// TestCloseDoesNotWaitForWrites: a flush that is under way when nothing is wanted any more holds neither the checkpoint up that waits for it,
// nor the store's closing, but for the one write that it is in.
func TestCloseDoesNotWaitForWrites(t *testing.T) {
	cache := NewCache(64 << 20)
	defer cache.Close()
	disk := &slowDisk{FS: vfs.Default, reached: make(chan struct{}), free: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(t.Context())
	dir := filepath.Join(t.TempDir(), "store")
	log := &bytes.Buffer{}
	s, err := open(ctx, disk, dir, cache, slog.New(slog.NewTextHandler(log, nil)), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := s.NewOverlay()
	for i := range 3000 {
		o.Put(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(i * 7)}, 300))
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- s.Checkpoint(filepath.Join(filepath.Dir(dir), "checkpoint")) }()
	<-disk.reached
	cancel(errOver)
	if err := <-wrote; !errors.Is(err, errOver) {
		t.Errorf("a checkpoint whose flush does not get on: %v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(o.Close(), s.Close()) }()
	for !s.files.closing.Load() {
		runtime.Gosched()
	}
	before := disk.begun.Load()
	close(disk.free)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	// One that had looked before it was may still begin, of each of the two files.
	if n := disk.begun.Load() - before; n > 2 {
		t.Errorf("%d writes began after the store was to be closed", n)
	}
	if log.Len() > 0 {
		t.Errorf("the log has:\n%s", log)
	}
}

// TestCloseInFrontOfTheLastWrite: what is left of values apart is written when their file is finished, and the store is to be closed then.
func TestCloseInFrontOfTheLastWrite(t *testing.T) {
	cache := NewCache(1 << 20)
	defer cache.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	disk := &endingDisk{FS: vfs.Default}
	dir := filepath.Join(t.TempDir(), "store")
	log := &bytes.Buffer{}
	s, err := open(ctx, disk, dir, cache, slog.New(slog.NewTextHandler(log, nil)), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := atomic.Bool{}
	disk.end = func() {
		ended.Store(true)
		s.files.closing.Store(true) // as Close does
		cancel(errOver)
	}
	o := s.NewOverlay()
	o.Put([]byte("a"), bytes.Repeat([]byte("v"), 1000))
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(filepath.Join(filepath.Dir(dir), "checkpoint")); err == nil {
		t.Error("a checkpoint of a store that is being closed")
	}
	if err := errors.Join(o.Close(), s.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if !ended.Load() || log.Len() > 0 {
		t.Errorf("values apart: %v; the log has:\n%s", ended.Load(), log)
	}
}

// endingDisk is a disk that calls end when a file of values apart is made.
type endingDisk struct {
	vfs.FS
	end func()
}

func (d *endingDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if filepath.Ext(name) == ".blob" {
		d.end()
	}
	return d.FS.Create(name, category)
}

// slowDisk is a disk whose writes to tables, and to values apart, wait.
type slowDisk struct {
	vfs.FS
	once    sync.Once
	reached chan struct{} // closed when the first has begun
	free    chan struct{} // what they wait for
	begun   atomic.Int64
}

func (d *slowDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	made, err := d.FS.Create(name, category)
	if ext := filepath.Ext(name); err != nil || ext != ".sst" && ext != ".blob" {
		return made, err
	}
	return slowFile{made, d}, nil
}

type slowFile struct {
	vfs.File
	disk *slowDisk
}

func (f slowFile) Write(b []byte) (int, error) {
	f.disk.begun.Add(1)
	f.disk.once.Do(func() { close(f.disk.reached) })
	<-f.disk.free
	return f.File.Write(b)
}
