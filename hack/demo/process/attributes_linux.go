package process

import "syscall"

// attributes: a group of its own, and death with us even when we are killed by SIGKILL. The kernel sends
// the signal when the thread that started the child ends; the Go runtime ends no thread unless a
// goroutine locked to it returns, and nothing here locks one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
