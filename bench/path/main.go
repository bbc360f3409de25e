//go:build linux

// Command path measures the whole path of an order against real processes on
// loopback: floodgate serve, and a bare fasthttp server that knows nothing, with
// the same requests in turns.
//
//	wrk, 128 connections ──► bare              A  what HTTP itself costs
//	                     └─► floodgate serve   B  HTTP, the decision, its fsync
//
// The figure that matters is the server's CPU time for a request, and its ratio
// to bare in the same minute: on a small or a shared machine the load generator
// takes its cores from the server, and requests a second tell more about the
// machine than about the program.
//
// After every run the books are checked. Where they do not balance, or an answer
// was not what the scenario asks for, the command says so and exits with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "path:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	flags := flag.NewFlagSet("path", flag.ContinueOnError)
	duration := flags.Duration("duration", 3*time.Second, "of one run, in whole seconds")
	rounds := flags.Int("rounds", 3, "pairs of runs, bare and floodgate in turns, for each scenario")
	connections := flags.Int("connections", 128, "of wrk")
	threads := flags.Int("threads", 2, "of wrk")
	only := flags.String("only", "", "comma separated scenarios to run; default: all, and the crowd")
	crowded := flags.Int("crowd", 10_000, "connections that are open at once in the connection test; 0: no such test")
	jsonPath := flags.String("json", "", "write all figures to this file")
	binary := flags.String("floodgate", "", "binary to measure; default: built from this module")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return flag.ErrHelp
	}
	if *rounds < 1 || *connections < *threads || *threads < 1 || *duration < time.Second || flags.NArg() > 0 {
		return errors.New("need at least one round, one second, one thread and a connection for each thread, and no further arguments")
	}
	chosen, crowdToo, err := choose(*only)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("wrk"); err != nil {
		return errors.New("wrk is not installed; it is in the package wrk of Debian, Ubuntu, Alpine and Homebrew, and deploy/need wrk installs it")
	}
	b := &bench{
		floodgate: *binary, rounds: *rounds, warmup: min(*duration, 2*time.Second),
		load: load{connections: *connections, threads: *threads, duration: *duration},
	}
	if b.dir, err = os.MkdirTemp("", "floodgate-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.script = filepath.Join(b.dir, "load.lua")
	if err := os.WriteFile(b.script, loadScript, 0o600); err != nil {
		return err
	}
	if b.floodgate == "" {
		if b.floodgate, err = build(ctx, b.dir, "floodgate/cmd/floodgate"); err != nil {
			return err
		}
	}
	bare, err := build(ctx, b.dir, "floodgate/bench/baseline/bare")
	if err != nil {
		return err
	}
	if b.bare, err = start(ctx, b.dir, "bare", bare, bareReady, "-addr={addr}"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bare.stop()) }()

	r := newReport(ctx, b)
	for _, sc := range chosen {
		fmt.Fprintf(os.Stderr, "%s: %s\n", sc.Name, sc.About)
		res, err := b.run(ctx, sc)
		if err != nil {
			return fmt.Errorf("scenario %s: %w", sc.Name, err)
		}
		r.Results = append(r.Results, res)
	}
	if crowdToo && *crowded > 0 {
		fmt.Fprintf(os.Stderr, "crowd: %d connections buy at once\n", *crowded)
		if r.Crowd, err = b.connections(ctx, *crowded); err != nil {
			return fmt.Errorf("connection test: %w", err)
		}
	}
	if err := r.print(os.Stdout); err != nil {
		return err
	}
	if *jsonPath != "" {
		return r.write(*jsonPath)
	}
	return nil
}

// choose returns the scenarios with these names.
func choose(names string) (chosen []scenario, crowd bool, err error) {
	if names == "" {
		return scenarios, true, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		if name == "crowd" {
			crowd = true
			continue
		}
		i := slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.Name == name })
		if i < 0 {
			return nil, false, fmt.Errorf("there is no scenario %q", name)
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, crowd, nil
}
