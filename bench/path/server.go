//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a process under measurement.
type server struct {
	name string
	addr string
	cmd  *exec.Cmd
	log  *os.File
	gone chan struct{} // closed when the process ended
	err  error         // how, once gone is closed
}

// build compiles a package of this module into dir.
func build(ctx context.Context, dir, pkg string) (string, error) {
	binary := filepath.Join(dir, filepath.Base(pkg))
	//nolint:gosec // the package is a constant of ours
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// freeAddr returns an address on loopback that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs the binary and waits until ready says so. Its output goes to a file
// in dir. The arguments may say {addr}.
func start(ctx context.Context, dir, name, binary string, ready func(ctx context.Context, addr string) error, args ...string) (*server, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{addr}", addr)
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: addr, log: log, gone: make(chan struct{})}
	// The process is ended by stop, not by the context: it is to drain.
	s.cmd = exec.Command(binary, args...) //nolint:gosec,noctx // a binary that was just built
	s.cmd.Stdout, s.cmd.Stderr = log, log
	for _, v := range os.Environ() { // the caller's configuration is not measured
		if !strings.HasPrefix(v, "FLOODGATE_") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.gone)
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ready(ctx, addr)
		if err == nil {
			return s, nil
		}
		select {
		case <-s.gone:
			return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", name, s.err, s.output())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), s.stop())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%s is not ready after 20 s: %w\n%s", name, err, s.output()), s.stop())
		}
	}
}

// output returns the end of what the process has written.
func (s *server) output() []byte {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	const end = 4 << 10
	return b[max(0, len(b)-end):]
}

// stop asks the process to drain and waits for it; one that does not is killed,
// and that is an error.
func (s *server) stop() error {
	defer s.log.Close()
	// A process that is gone already is told below.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s did not drain within 20 s\n%s", s.name, s.output()), s.cmd.Process.Kill())
	}
	var exit *exec.ExitError
	if errors.As(s.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
		return nil // it has no handler for the signal, and nothing to drain
	}
	if s.err != nil {
		return fmt.Errorf("%s: %w\n%s", s.name, s.err, s.output())
	}
	return nil
}

// clockTick is the unit of the times in /proc, USER_HZ, on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// cpu returns the user and system time the process has used.
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name before may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat of %s has %d fields", s.name, len(fields))
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// quietCPU waits until the process has nothing left to do, a few seconds at
// most, and returns what it has used by then: work that a load leaves behind, as
// an index that follows, belongs to the load.
func (s *server) quietCPU() (time.Duration, error) {
	const look, patience = 150 * time.Millisecond, 20
	before, err := s.cpu()
	for range patience {
		if err != nil {
			return 0, err
		}
		time.Sleep(look)
		var now time.Duration
		if now, err = s.cpu(); now-before <= clockTick {
			return now, err
		}
		before = now
	}
	return before, err
}

// rss returns the bytes of memory the process holds.
func (s *server) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(b, []byte("VmRSS:"))
	fields := bytes.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("status of %s has no VmRSS", s.name)
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return kib << 10, err
}
