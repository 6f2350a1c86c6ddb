package shuffle

import (
	"errors"
	"sync"
)

// segments are the files that all block lists of a store share: there may be thousands of lists (one for each window of a
// side input, say), and a process may open only so many files. A file takes blocks until it has reached its size, and
// goes when no list has a block in it any more. It is safe for concurrent use.
type segments struct {
	store *Store

	mu      sync.Mutex
	current *sharedFile
}

// sharedFile is a spill file with blocks of several lists. segments.mu guards writes and refs.
type sharedFile struct {
	spillFile
	refs int // lists that have blocks here
}

// place is where a block is.
type place struct {
	file *sharedFile
	off  int64
}

// append writes a block for a list that has blocks in the given files, which it adds to.
func (s *segments) append(block []byte, used *[]*sharedFile) (place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || s.current.end() >= s.store.tune.segment {
		s.current = &sharedFile{spillFile: spillFile{store: s.store}}
	}
	f := s.current
	if n := len(*used); n == 0 || (*used)[n-1] != f {
		f.refs++
		*used = append(*used, f)
	}
	off, err := f.append(block)
	return place{f, off}, err
}

// release says that a list is gone which had blocks in the files.
func (s *segments) release(used []*sharedFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range used {
		if f.refs--; f.refs > 0 {
			continue
		}
		if s.current == f {
			s.current = nil
		}
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}
