//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// scenario is one question to the whole path.
type scenario struct {
	Name  string
	About string
	sync  string // --sync
	limit int64
	keyed bool
	stock int64
	// wins says what the answers must be.
	wins outcome
}

type outcome int

const (
	all  outcome = iota // every request is accepted
	none                // every request is refused: the stock was sold before
	some                // the stock, new in each run, is sold out to the last unit
)

// plenty is more than any run can sell, and the most a product can have.
const plenty = 1_000_000_000

var scenarios = []scenario{
	{Name: "refused", About: "sold out before; no key, so no hand-off", sync: "always", stock: 1000, wins: none},
	{Name: "accepted", About: "every request wins; answered after the fsync", sync: "always", stock: plenty, wins: all},
	{Name: "limited", About: "accepted, with a limit of 2 a buyer", sync: "always", stock: plenty, limit: 2, wins: all},
	{Name: "keyed", About: "accepted, each with an Idempotency-Key", sync: "always", stock: plenty, keyed: true, wins: all},
	{Name: "unsynced", About: "accepted under --sync=none: a crash or a power cut loses orders", sync: "none", stock: plenty, wins: all},
	{Name: "sellout", About: "20,000 units sold out on the way, each run anew: books exact to the unit", sync: "always", stock: 20_000, wins: some},
}

// measurement is one run of one server.
type measurement struct {
	answers
	PerSecond     float64 `json:"requests_per_second"`
	CPUPerRequest float64 `json:"cpu_us_per_request"`
	RSS           int64   `json:"rss_bytes"`
}

// result is a scenario's pairs: Bare[i] ran right before Ours[i].
type result struct {
	Scenario string        `json:"scenario"`
	About    string        `json:"about"`
	Bare     []measurement `json:"bare"`
	Ours     []measurement `json:"floodgate"`
	Books    product       `json:"books"`
}

// bench is what all scenarios share.
type bench struct {
	dir, floodgate string // the temporary directory, the binary
	script         string // wrk's
	bare           *server
	load           load
	rounds         int
	warmup         time.Duration
}

// startNode runs floodgate serve on an empty data directory.
func (b *bench) startNode(ctx context.Context, name, sync string) (*server, error) {
	data := filepath.Join(b.dir, name+"-data")
	return start(ctx, b.dir, name, b.floodgate, nodeReady, "serve", "--addr={addr}", "--data-dir="+data,
		"--sync="+sync, "--admin-token="+adminToken)
}

// run measures the scenario: bare and ours in turns, so that what the machine
// does meanwhile happens to both.
func (b *bench) run(ctx context.Context, sc scenario) (r result, err error) {
	r = result{Scenario: sc.Name, About: sc.About}
	node, err := b.startNode(ctx, sc.Name, sc.sync)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, node.stop(), os.RemoveAll(filepath.Join(b.dir, sc.Name+"-data")))
	}()
	if err := createProduct(ctx, node.addr, sc.stock, sc.limit); err != nil {
		return r, err
	}
	books := ledger{stock: sc.stock}
	if sc.wins == none {
		if err := buyAll(ctx, node.addr, sc.stock); err != nil {
			return r, err
		}
		books.accepted = sc.stock
	}
	l := b.load
	l.path, l.keyed = placePath, sc.keyed
	for round := range b.rounds + 1 {
		l.duration = b.load.duration
		if round == 0 { // not measured; but its orders count
			l.duration = b.warmup
		}
		bare, err := b.measure(ctx, b.bare, &l, round)
		if err != nil {
			return r, err
		}
		if sc.wins == some && round > 0 {
			if err := resetProduct(ctx, node.addr, sc.stock); err != nil {
				return r, err
			}
			books = ledger{stock: sc.stock}
		}
		ours, err := b.measure(ctx, node, &l, round)
		if err != nil {
			return r, err
		}
		books.accepted += ours.accepted()
		if sc.wins == all {
			books.cut += int64(l.connections)
		}
		if r.Books, err = settledProduct(ctx, node.addr); err != nil {
			return r, err
		}
		if err := errors.Join(sc.judge(ours, round), books.check(r.Books)); err != nil {
			return r, err
		}
		if round > 0 {
			r.Bare, r.Ours = append(r.Bare, bare), append(r.Ours, ours)
		}
	}
	return r, nil
}

// judge says whether the answers are those the scenario asks for: a benchmark of
// acceptances must not be fast because it refused.
func (sc *scenario) judge(m measurement, round int) error {
	var fault string
	switch {
	case m.errors() > 0:
		fault = "sockets failed"
	case sc.wins == all && m.Refused > 0:
		fault = "some were refused"
	case sc.wins == none && m.Refused != m.Requests:
		fault = "some were accepted after the sell-out"
	case sc.wins == some && m.accepted() != sc.stock:
		fault = fmt.Sprintf("not exactly the stock of %d was sold", sc.stock)
	default:
		return nil
	}
	return fmt.Errorf("round %d: %s: %d requests, %d refused, %d connect, %d read, %d write errors, %d timeouts",
		round, fault, m.Requests, m.Refused, m.Connect, m.Read, m.Write, m.Timeout)
}

// measure drives one server once.
func (b *bench) measure(ctx context.Context, s *server, l *load, round int) (m measurement, err error) {
	before, err := s.quietCPU()
	if err != nil {
		return m, err
	}
	m.answers, err = l.wrk(ctx, b.script, s.addr, fmt.Sprintf("%02d", round))
	if err != nil {
		return m, err
	}
	if m.Requests == 0 {
		return m, fmt.Errorf("%s answered nothing", s.name)
	}
	if m.RSS, err = s.rss(); err != nil {
		return m, err
	}
	after, err := s.quietCPU()
	m.PerSecond = m.perSecond()
	m.CPUPerRequest = float64((after - before).Microseconds()) / float64(m.Requests)
	return m, err
}
