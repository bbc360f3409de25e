//go:build !unix

package ingest

import "syscall"

// canFill says that a descriptor cannot be read without waiting, so a request's
// first byte is read alone.
const canFill = false

func readDescriptor(uintptr, []byte) (int, error) { return 0, syscall.EINVAL }

func writeDescriptor(uintptr, []byte) int { return 0 }
