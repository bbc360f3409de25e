//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all that a run of this command found, with its conditions.
type report struct {
	Time        time.Time `json:"time"`
	Command     string    `json:"command"`
	Commit      string    `json:"commit,omitempty"`
	Go          string    `json:"go"`
	System      string    `json:"system"`
	CPU         string    `json:"cpu"`
	Cores       int       `json:"cores"`
	Connections int       `json:"connections"`
	Threads     int       `json:"wrk_threads"`
	Duration    float64   `json:"seconds_a_run"`
	Rounds      int       `json:"rounds"`
	Results     []result  `json:"results"`
	Crowd       []crowd   `json:"crowd,omitempty"`
}

func newReport(ctx context.Context, b *bench) *report {
	r := &report{
		Time: time.Now().UTC().Round(time.Second), Command: "go run ./bench/path " + strings.Join(os.Args[1:], " "),
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), CPU: cpuModel(),
		Connections: b.load.connections, Threads: b.load.threads, Duration: b.load.duration.Seconds(), Rounds: b.rounds,
	}
	// Outside a work tree there is no commit to name.
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output(); err == nil {
		r.Commit = string(bytes.TrimSpace(out))
	}
	return r
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(b), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(line, " \t:")
}

// median of one figure over the rounds.
func median(of []measurement, figure func(measurement) float64) float64 {
	values := make([]float64, len(of))
	for i, m := range of {
		values[i] = figure(m)
	}
	return medianOf(values)
}

func medianOf(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median over the pairs of what ours cost against bare.
func (r *result) ratio() float64 {
	values := make([]float64, len(r.Ours))
	for i := range r.Ours {
		values[i] = r.Ours[i].CPUPerRequest / r.Bare[i].CPUPerRequest
	}
	return medianOf(values)
}

// print writes the table. All figures are medians over the rounds.
func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, %d cores, %s %s, commit %s; %d connections, %d threads of wrk, %d rounds of %g s\n\n",
		r.CPU, r.Cores, r.Go, r.System, r.Commit, r.Connections, r.Threads, r.Rounds, r.Duration)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "scenario\tserver\treq/s\tCPU us/req\tto bare\tp50 us\tp99 us\trefused\terrors\tRSS MiB\t")
	row := func(name, server, ratio string, of []measurement) {
		var refused, failed int64
		for _, m := range of {
			refused += m.Refused
			failed += m.errors()
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.2f\t%s\t%.0f\t%.0f\t%d\t%d\t%.0f\t\n", name, server,
			median(of, func(m measurement) float64 { return m.PerSecond }),
			median(of, func(m measurement) float64 { return m.CPUPerRequest }), ratio,
			median(of, func(m measurement) float64 { return float64(m.P50US) }),
			median(of, func(m measurement) float64 { return float64(m.P99US) }), refused, failed,
			median(of, func(m measurement) float64 { return float64(m.RSS) })/(1<<20))
	}
	for i := range r.Results {
		res := &r.Results[i]
		row(res.Scenario, "bare", "1.00", res.Bare)
		row("", "floodgate", fmt.Sprintf("%.2f", res.ratio()), res.Ours)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i := range r.Results {
		res := &r.Results[i]
		fmt.Fprintf(w, "%s: %s. Books: stock %d = remaining %d + held %d + sold %d.\n",
			res.Scenario, res.About, res.Books.Stock, res.Books.Remaining, res.Books.Held, res.Books.Sold)
	}
	for _, c := range r.Crowd {
		fmt.Fprintf(w, "%d connections at once to %s: %d accepted, %d refused, no error; the last answer after %.2f s; %d bytes an idle connection.\n",
			c.Connections, c.Server, c.Accepted, c.Refused, c.AnsweredIn, c.IdleBytes)
	}
	return nil
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644) //nolint:gosec // a result that anybody may read
}
