//go:build unix

package process

import "syscall"

// signalGroup signals every process of the group. That the group is gone already is no error.
func signalGroup(pgid int, sig syscall.Signal) { _ = syscall.Kill(-pgid, sig) }
