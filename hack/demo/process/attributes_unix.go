//go:build unix && !linux

package process

import "syscall"

// attributes: a group of its own. Where the kernel offers no death with the parent, the reaper alone sees to it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
