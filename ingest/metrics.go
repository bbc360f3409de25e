package ingest

import (
	"bytes"
	"encoding/json"
	"math/bits"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// meters count requests. A connection always counts in the same shard, so two
// cores seldom write to one cache line, and a reader adds the shards up.
type meters struct {
	shards   [meterShards]meterShard
	registry *prometheus.Registry
	started  time.Time

	mu      sync.Mutex
	samples []sample // one a second, oldest first
}

const (
	meterShards = 8
	keptSamples = 11 // ten seconds between the first and the last
)

type meterShard struct {
	requests [routeCount][statusCount]atomic.Uint64
	problems [problemCount]atomic.Uint64
	accepted atomic.Uint64
	units    atomic.Uint64
	replayed atomic.Uint64
	latency  latency
	_        [64]byte
}

// of returns the shard in which the request counts.
func (m *meters) of(ctx *fasthttp.RequestCtx) *meterShard {
	return &m.shards[ctx.ConnID()%meterShards]
}

// took counts a command to buy that was answered after that time. Only where err
// is nil is there an answer to look at.
func (m *meterShard) took(c *engine.Command, d time.Duration, err error) {
	m.latency.observe(d)
	switch {
	case err != nil:
	case c.Answer.Outcome == engine.Accepted:
		m.accepted.Add(1)
		m.units.Add(uint64(c.Quantity))
	case c.Answer.Outcome == engine.Replayed:
		m.replayed.Add(1)
	}
}

// statuses are all that are ever answered; others count as 0.
var statuses = [...]int{0, 101, 200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 414, 415, 422, 426, 429, 431, 500, 503, 504, 505}

const statusCount = len(statuses)

// statusIndexes find a status in statuses.
var statusIndexes = func() (table [600]uint8) {
	for i, status := range statuses {
		table[status] = uint8(i)
	}
	return table
}()

func statusIndex(status int) int {
	if status < 0 || status >= len(statusIndexes) {
		return 0
	}
	return int(statusIndexes[status])
}

// latency is a histogram of microseconds with eight buckets to each doubling, so
// a quantile is off by an eighth at most.
type latency [latencyBuckets]atomic.Uint64

const latencyBuckets = 8 * 32

type latencies [latencyBuckets]uint64

func (l *latency) observe(d time.Duration) { l[latencyBucket(d)].Add(1) }

func latencyBucket(d time.Duration) int {
	us := uint64(max(d, 0)) / uint64(time.Microsecond)
	if us < 8 {
		return int(us)
	}
	octave := bits.Len64(us) - 4
	return min(8*(octave+1)+int(us>>octave&7), latencyBuckets-1)
}

// latencyBound returns what is just above every value of the bucket, in microseconds.
func latencyBound(bucket int) uint64 {
	if bucket < 8 {
		return uint64(bucket) + 1
	}
	octave := bucket/8 - 1
	return uint64(bucket%8+9) << octave
}

// quantile returns the q-quantile in milliseconds.
func (l *latencies) quantile(q float64) float64 {
	total := uint64(0)
	for _, n := range l {
		total += n
	}
	rank, seen := uint64(q*float64(total)), uint64(0)
	for i, n := range l {
		if seen += n; n > 0 && (seen > rank || seen == total) {
			return float64(latencyBound(i)) / 1000
		}
	}
	return 0
}

// sample is what was counted up to a moment.
type sample struct {
	at                                  time.Time
	requests, accepted, refused, failed uint64
	latency                             latencies
}

func (m *meters) sample(now time.Time) (t sample) {
	t.at = now
	for i := range m.shards {
		shard := &m.shards[i]
		for r := range shard.requests {
			for status := range shard.requests[r] {
				n := shard.requests[r][status].Load()
				t.requests += n
				switch code := statuses[status]; {
				case code >= 500:
					t.failed += n
				case code >= 400 && route(r) == placeRoute:
					t.refused += n
				}
			}
		}
		t.accepted += shard.accepted.Load()
		for b := range shard.latency {
			t.latency[b] += shard.latency[b].Load()
		}
	}
	return t
}

// sample keeps the last ten seconds, until the server is shut down.
func (s *Server) sample() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			t := s.meters.sample(now)
			s.meters.mu.Lock()
			if len(s.meters.samples) == keptSamples {
				s.meters.samples = append(s.meters.samples[:0], s.meters.samples[1:]...)
			}
			s.meters.samples = append(s.meters.samples, t)
			s.meters.mu.Unlock()
		}
	}
}

// stats is the answer of /v1/stats. Rates are of the last whole second, the
// latencies of the last ten: of orders that a shard was asked for, from the
// request read to the answer known.
type stats struct {
	Now           time.Time `json:"now"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Connections   int64     `json:"connections"`
	TurnedAway    uint64    `json:"connections_turned_away"`

	PerSecond struct {
		Requests float64 `json:"requests"`
		Accepted float64 `json:"accepted"`
		Refused  float64 `json:"refused"`
		Failed   float64 `json:"failed"`
	} `json:"per_second"`
	LatencyMillis struct {
		P50   float64 `json:"p50"`
		P90   float64 `json:"p90"`
		P99   float64 `json:"p99"`
		P999  float64 `json:"p999"`
		Count uint64  `json:"count"`
	} `json:"latency_ms"`
	Totals struct {
		Requests uint64 `json:"requests"`
		Accepted uint64 `json:"accepted"`
		Refused  uint64 `json:"refused"`
		Failed   uint64 `json:"failed"`
	} `json:"totals"`
	Problems map[string]uint64 `json:"problems"`

	Shards  []shardStats `json:"shards"`
	Journal struct {
		Sequence      uint64  `json:"sequence"`
		Failed        bool    `json:"failed"`
		CommitMillis  float64 `json:"commit_ms_p50"`
		Commit99      float64 `json:"commit_ms_p99"`
		EventsACommit float64 `json:"events_per_commit"`
		Snapshots     uint64  `json:"snapshots"`
	} `json:"journal"`
	Overloaded uint64 `json:"overloaded"`
	GivenUp    uint64 `json:"given_up"`
}

type shardStats struct {
	InboxDepth  int     `json:"inbox_depth"`
	InboxLimit  int     `json:"inbox_limit"`
	BusySeconds float64 `json:"busy_seconds"`
	Products    int     `json:"products"`
	Decisions   uint64  `json:"decisions"`
}

func (s *Server) getStats(ctx *fasthttp.RequestCtx, h *head) {
	if _, ok := s.admin(ctx, h); !ok {
		return
	}
	b, err := json.Marshal(s.stats(ctx.Time()))
	if err != nil {
		panic("ingest: stats are not JSON: " + err.Error())
	}
	s.answer(ctx, fasthttp.StatusOK, b)
}

func (s *Server) stats(now time.Time) (t stats) {
	m := s.meters
	total := m.sample(now)
	t.Now, t.UptimeSeconds = now.UTC(), now.Sub(m.started).Seconds()
	t.Connections, t.TurnedAway = s.connections()
	t.Totals.Requests, t.Totals.Accepted, t.Totals.Refused, t.Totals.Failed = total.requests, total.accepted, total.refused, total.failed
	t.Problems = make(map[string]uint64)
	for i := range m.shards {
		for p := range m.shards[i].problems {
			if n := m.shards[i].problems[p].Load(); n > 0 {
				t.Problems[problem(p).String()] += n
			}
		}
	}

	m.mu.Lock()
	if n := len(m.samples); n >= 2 {
		last, before, first := &m.samples[n-1], &m.samples[n-2], &m.samples[0]
		seconds := last.at.Sub(before.at).Seconds()
		t.PerSecond.Requests = float64(last.requests-before.requests) / seconds
		t.PerSecond.Accepted = float64(last.accepted-before.accepted) / seconds
		t.PerSecond.Refused = float64(last.refused-before.refused) / seconds
		t.PerSecond.Failed = float64(last.failed-before.failed) / seconds
		window := last.latency
		for i := range window {
			window[i] -= first.latency[i]
			t.LatencyMillis.Count += window[i]
		}
		t.LatencyMillis.P50, t.LatencyMillis.P90 = window.quantile(0.5), window.quantile(0.9)
		t.LatencyMillis.P99, t.LatencyMillis.P999 = window.quantile(0.99), window.quantile(0.999)
	}
	m.mu.Unlock()

	e := s.engine.Stats()
	t.Shards = make([]shardStats, 0, len(e.Shards))
	for _, shard := range e.Shards {
		t.Shards = append(t.Shards, shardStats{
			InboxDepth: shard.InboxDepth, InboxLimit: shard.InboxLimit,
			BusySeconds: time.Duration(shard.BusyNanos).Seconds(), Products: shard.Products, Decisions: shard.Decisions,
		})
	}
	t.Journal.Sequence, t.Journal.Failed, t.Journal.Snapshots = e.Seq, e.Failed != nil, e.Snapshots
	t.Journal.CommitMillis = float64(e.CommitNanos.Quantile(0.5)) / 1e6
	t.Journal.Commit99 = float64(e.CommitNanos.Quantile(0.99)) / 1e6
	if e.CommitSize.Count > 0 {
		t.Journal.EventsACommit = float64(e.CommitSize.Sum) / float64(e.CommitSize.Count)
	}
	t.Overloaded, t.GivenUp = e.Overloaded, e.GivenUp
	return t
}

// getMetrics writes the Prometheus text format.
func (s *Server) getMetrics(ctx *fasthttp.RequestCtx) {
	families, err := s.meters.registry.Gather()
	if err != nil {
		// What could be gathered is still worth having.
		s.log.Warn().Err(err).Msg("cannot gather all metrics")
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var b bytes.Buffer
	encoder := expfmt.NewEncoder(&b, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			s.log.Warn().Err(err).Str("family", family.GetName()).Msg("cannot write a metric")
		}
	}
	ctx.Response.Header.SetContentType(string(format))
	ctx.Response.SetBodyRaw(b.Bytes())
}

// newMeters returns the meters, and the registry that shows them.
func newMeters(s *Server, more []prometheus.Collector) (*meters, error) {
	m := &meters{registry: prometheus.NewRegistry(), started: time.Now()}
	own := []prometheus.Collector{
		&serverCollector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, c := range append(own, more...) {
		if err := m.registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// serverCollector shows what the server and the engine count, read when asked.
// Labels take values from lists in this package and the engine, never from a
// client, so the number of series is bounded.
type serverCollector struct{ s *Server }

var (
	requestsDesc    = prometheus.NewDesc("floodgate_http_requests_total", "Requests answered, by route and status.", []string{"route", "status"}, nil)
	problemsDesc    = prometheus.NewDesc("floodgate_http_problems_total", "Requests answered with a problem, by its name.", []string{"problem"}, nil)
	acceptedDesc    = prometheus.NewDesc("floodgate_orders_accepted_total", "Orders accepted and durable, retries not counted.", nil, nil)
	unitsDesc       = prometheus.NewDesc("floodgate_units_accepted_total", "Units of the orders accepted.", nil, nil)
	replayedDesc    = prometheus.NewDesc("floodgate_orders_replayed_total", "Retries answered with the order their key bought.", nil, nil)
	latencyDesc     = prometheus.NewDesc("floodgate_order_latency_seconds", "From an order read to its answer known, where a shard was asked.", nil, nil)
	connectionsDesc = prometheus.NewDesc("floodgate_http_connections", "Connections held.", nil, nil)
	turnedDesc      = prometheus.NewDesc("floodgate_http_connections_turned_away_total", "Connections refused because there were too many.", nil, nil)
	decisionsDesc   = prometheus.NewDesc("floodgate_engine_decisions_total", "Commands decided by the shards, by outcome.", []string{"outcome"}, nil)
	depthDesc       = prometheus.NewDesc("floodgate_engine_inbox_depth", "Commands that wait to be decided, by shard.", []string{"shard"}, nil)
	depthLimitDesc  = prometheus.NewDesc("floodgate_engine_inbox_limit", "Commands that may wait, by shard.", []string{"shard"}, nil)
	busyDesc        = prometheus.NewDesc("floodgate_engine_busy_seconds_total", "Time spent deciding, by shard. Its growth is the shard's saturation.", []string{"shard"}, nil)
	productsDesc    = prometheus.NewDesc("floodgate_engine_products", "Products, by shard.", []string{"shard"}, nil)
	overloadedDesc  = prometheus.NewDesc("floodgate_engine_overloaded_total", "Commands refused because an inbox was full.", nil, nil)
	givenUpDesc     = prometheus.NewDesc("floodgate_engine_given_up_total", "Commands given up because the journal stalled.", nil, nil)
	batchDesc       = prometheus.NewDesc("floodgate_engine_batch_commands", "Commands a shard took at once.", nil, nil)
	commitSizeDesc  = prometheus.NewDesc("floodgate_journal_commit_events", "Events stored with one append.", nil, nil)
	commitTimeDesc  = prometheus.NewDesc("floodgate_journal_commit_seconds", "How long an append took.", nil, nil)
	sequenceDesc    = prometheus.NewDesc("floodgate_journal_sequence", "The last durable sequence.", nil, nil)
	failedDesc      = prometheus.NewDesc("floodgate_journal_failed", "1 where the journal failed and nothing is sold any more.", nil, nil)
	snapshotsDesc   = prometheus.NewDesc("floodgate_snapshots_total", "Snapshots written.", nil, nil)
	snapshotSeqDesc = prometheus.NewDesc("floodgate_snapshot_sequence", "The sequence that the snapshots include.", nil, nil)
)

func (c *serverCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{
		requestsDesc, problemsDesc, acceptedDesc, unitsDesc, replayedDesc, latencyDesc, connectionsDesc, turnedDesc,
		decisionsDesc, depthDesc, depthLimitDesc, busyDesc, productsDesc, overloadedDesc, givenUpDesc, batchDesc,
		commitSizeDesc, commitTimeDesc, sequenceDesc, failedDesc, snapshotsDesc, snapshotSeqDesc,
	} {
		to <- d
	}
}

func (c *serverCollector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}

	m := c.s.meters
	var requests [routeCount][statusCount]uint64
	var refused [problemCount]uint64
	var took latencies
	var accepted, units, replayed uint64
	for i := range m.shards {
		shard := &m.shards[i]
		for r := range requests {
			for status := range requests[r] {
				requests[r][status] += shard.requests[r][status].Load()
			}
		}
		for p := range refused {
			refused[p] += shard.problems[p].Load()
		}
		for b := range took {
			took[b] += shard.latency[b].Load()
		}
		accepted += shard.accepted.Load()
		units += shard.units.Load()
		replayed += shard.replayed.Load()
	}
	for r := range requests {
		for status, n := range requests[r] {
			if n > 0 {
				counter(requestsDesc, float64(n), routes[r].name, strconv.Itoa(statuses[status]))
			}
		}
	}
	for p, n := range refused {
		if problem(p) != noProblem {
			counter(problemsDesc, float64(n), problem(p).String())
		}
	}
	counter(acceptedDesc, float64(accepted))
	counter(unitsDesc, float64(units))
	counter(replayedDesc, float64(replayed))
	to <- took.metric()
	inside, turned := c.s.connections()
	gauge(connectionsDesc, float64(inside))
	counter(turnedDesc, float64(turned))

	e := c.s.engine.Stats()
	for _, o := range engine.Outcomes() {
		counter(decisionsDesc, float64(e.Outcomes[o]), o.String())
	}
	for i, shard := range e.Shards {
		name := strconv.Itoa(i)
		gauge(depthDesc, float64(shard.InboxDepth), name)
		gauge(depthLimitDesc, float64(shard.InboxLimit), name)
		counter(busyDesc, time.Duration(shard.BusyNanos).Seconds(), name)
		gauge(productsDesc, float64(shard.Products), name)
	}
	counter(overloadedDesc, float64(e.Overloaded))
	counter(givenUpDesc, float64(e.GivenUp))
	to <- powers(batchDesc, &e.Batches, 1)
	to <- powers(commitSizeDesc, &e.CommitSize, 1)
	to <- powers(commitTimeDesc, &e.CommitNanos, 1e-9)
	gauge(sequenceDesc, float64(e.Seq))
	failed := 0.0
	if e.Failed != nil {
		failed = 1
	}
	gauge(failedDesc, failed)
	counter(snapshotsDesc, float64(e.Snapshots))
	gauge(snapshotSeqDesc, float64(e.SnapshotSeq))
}

// metric shows the latencies with a bound at each doubling from 64 microseconds
// to 8 seconds. The bounds are those of buckets, so nothing is estimated but the sum.
func (l *latencies) metric() prometheus.Metric {
	const low, high = 6, 23
	bounds := make(map[float64]uint64, high-low+1)
	count, micros := uint64(0), 0.0
	next := low
	for i, n := range l {
		for next <= high && latencyBound(i) > 1<<next {
			bounds[float64(uint64(1)<<next)/1e6] = count
			next++
		}
		count += n
		micros += float64(n) * (float64(latencyBound(i)) - 0.5)
	}
	return prometheus.MustNewConstHistogram(latencyDesc, count, micros/1e6, bounds)
}

// powers shows a histogram of the engine: its bounds are powers of two, and a
// value that is one stands in the bucket above.
func powers(d *prometheus.Desc, h *engine.Histogram, unit float64) prometheus.Metric {
	bounds := make(map[float64]uint64)
	count, last := uint64(0), 0
	for i, n := range h.Buckets {
		if n > 0 {
			last = i
		}
	}
	for i, n := range h.Buckets[:last+1] {
		count += n
		bounds[float64(uint64(1)<<i-1)*unit] = count
	}
	return prometheus.MustNewConstHistogram(d, count, float64(h.Sum)*unit, bounds)
}
