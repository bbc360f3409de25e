package bench_test

import (
	"os"
	"syscall"
)

// syncData makes the file's content durable, and of what describes it only its
// length. It is what Pebble does for its log.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
