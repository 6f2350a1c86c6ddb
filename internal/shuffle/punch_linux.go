package shuffle

import (
	"os"
	"syscall"
)

// punch gives the space of a part of the file back; what is read there from then on is zero.
func punch(f *os.File, off, n int64) error {
	const keepSize, punchHole = 1, 2 // FALLOC_FL_* of linux/falloc.h
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = syscall.Fallocate(int(fd), keepSize|punchHole, off, n) }); err != nil {
		return err
	}
	return failed
}
