//go:build unix

package ingest

import "syscall"

// canFill says that a descriptor can be read without waiting.
const canFill = true

func readDescriptor(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// writeDescriptor returns how much the socket took at once.
func writeDescriptor(fd uintptr, p []byte) int {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0)
		}
	}
}
