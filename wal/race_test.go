//go:build race

package wal_test

// slow divides the random repetitions of a test; the race detector needs the
// interleavings, not the number.
const slow = 10
