//go:build unix && !aix

package sqstest

import (
	"errors"
	"syscall"
)

// hungUp reports whether the other side has closed its end of the connection, or broken it. It neither blocks nor takes
// anything from what is there to be read.
func hungUp(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var n int
	var readErr error
	// Control, and not Read, which would wait for net/http's own read to end.
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, readErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return true // closed on this side
	case readErr == nil:
		return n == 0
	}
	return !errors.Is(readErr, syscall.EAGAIN) && !errors.Is(readErr, syscall.EINTR)
}
