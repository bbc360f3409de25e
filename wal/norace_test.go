//go:build !race

package wal_test

const slow = 1
