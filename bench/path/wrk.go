//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

//go:embed load.lua
var loadScript []byte

// load is what wrk is asked to do.
type load struct {
	connections, threads int
	duration             time.Duration
	path                 string
	keyed                bool
}

// answers is what wrk counted.
type answers struct {
	Requests   int64 `json:"requests"` // answers that came
	Refused    int64 `json:"refused"`  // of them, with a status of 400 or more
	DurationUS int64 `json:"duration_us"`
	Connect    int64 `json:"connect"` // the rest are errors of sockets
	Read       int64 `json:"read"`
	Write      int64 `json:"write"`
	Timeout    int64 `json:"timeout"`
	P50US      int64 `json:"p50_us"`
	P99US      int64 `json:"p99_us"`
	MaxUS      int64 `json:"max_us"`
}

func (a *answers) accepted() int64 { return a.Requests - a.Refused }

func (a *answers) errors() int64 { return a.Connect + a.Read + a.Write + a.Timeout }

func (a *answers) perSecond() float64 {
	return float64(a.Requests) / (time.Duration(a.DurationUS) * time.Microsecond).Seconds()
}

// wrk drives the server at addr. Run names the buyers, so that no two runs know
// each other's.
func (l *load) wrk(ctx context.Context, script, addr, run string) (answers, error) {
	kind := "plain"
	if l.keyed {
		kind = "keyed"
	}
	//nolint:gosec // the program is fixed and the arguments are our own
	cmd := exec.CommandContext(ctx, "wrk", "-t", strconv.Itoa(l.threads), "-c", strconv.Itoa(l.connections),
		"-d", strconv.FormatFloat(max(1, l.duration.Round(time.Second).Seconds()), 'f', 0, 64)+"s",
		"-s", script, "http://"+addr, "--", l.path, addr, run, kind)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return answers{}, fmt.Errorf("wrk: %w: %s", err, errs.Bytes())
	}
	_, line, found := bytes.Cut(out.Bytes(), []byte("RESULT "))
	var a answers
	if !found {
		return a, fmt.Errorf("wrk told no result: %s%s", out.Bytes(), errs.Bytes())
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("wrk's result %q: %w", line, err)
	}
	return a, nil
}
