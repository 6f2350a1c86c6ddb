package boot

import "syscall"

// childAttr has the kernel end the child when we die. It stays in our process group, so that whoever ends the group
// reaches it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
