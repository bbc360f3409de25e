//go:build !linux

// Command path measures the whole path; see main.go.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "path: it reads the servers' processor time from /proc and needs Linux")
	os.Exit(1)
}
