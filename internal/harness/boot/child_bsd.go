//go:build unix && !linux

package boot

import "syscall"

// childAttr leaves the child in our process group, so that whoever ends the group reaches it.
func childAttr() *syscall.SysProcAttr { return nil }
