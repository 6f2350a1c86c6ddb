package kv

import "fmt"

// Usage is about how many bytes of files hold the keys from lo on and before hi, with what has been removed of them and is not
// collected yet. What is in memory only does not count.
func (s *Store) Usage(lo, hi []byte) (uint64, error) {
	n, err := s.db.EstimateDiskUsage(lo, hi)
	if err != nil {
		return 0, fmt.Errorf("store: how large it is: %w", err)
	}
	return n, nil
}
