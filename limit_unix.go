//go:build unix

package parley

import "syscall"

// fileLimit is how many file descriptors the process may have; 0: it is not known. Go raises the soft limit to the hard
// one at start.
func fileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // it is signed on FreeBSD
}
