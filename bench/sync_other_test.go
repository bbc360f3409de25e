//go:build !linux

package bench_test

import "os"

// syncData makes the file durable: this system has no fdatasync that Go offers.
func syncData(f *os.File) error { return f.Sync() }
