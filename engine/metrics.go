package engine

import (
	"math/bits"
	"sync/atomic"
)

// histogram counts values by powers of two. It is written by one goroutine and
// read by any.
type histogram struct {
	buckets [48]atomic.Uint64
	sum     atomic.Int64
}

func (h *histogram) observe(v int64) {
	h.buckets[min(bits.Len64(uint64(max(v, 0))), len(h.buckets)-1)].Add(1)
	h.sum.Add(v)
}

// Histogram is a reading of a histogram. Buckets[i] counts the values below 2^i
// that are not in a bucket before.
type Histogram struct {
	Buckets [48]uint64
	Count   uint64
	Sum     int64
}

func (h *histogram) read() (r Histogram) {
	for i := range h.buckets {
		r.Buckets[i] = h.buckets[i].Load()
		r.Count += r.Buckets[i]
	}
	r.Sum = h.sum.Load()
	return r
}

// Quantile returns an upper bound of the q-quantile, 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) int64 {
	rank := uint64(q * float64(h.Count))
	var seen uint64
	for i, n := range h.Buckets {
		if seen += n; n > 0 && seen > rank || seen == h.Count && n > 0 {
			return int64(1) << i
		}
	}
	return 0
}

type shardMetrics struct {
	outcomes [lastOutcome + 1]atomic.Uint64
	batches  histogram // commands drained at once
	busy     atomic.Int64
}

type commitMetrics struct {
	events  histogram // events stored at once
	latency histogram // nanoseconds of one append
	seq     atomic.Uint64
}

// ShardStats describes one shard.
type ShardStats struct {
	InboxDepth int    // commands that wait to be decided
	InboxLimit int    // commands that may wait
	BusyNanos  int64  // time spent deciding since start: its growth is the shard's saturation
	Products   int    //
	Decisions  uint64 // since start
}

// Stats is a reading of the engine's counters, all since the process started.
type Stats struct {
	Shards      []ShardStats
	Outcomes    [lastOutcome + 1]uint64 // decisions by Outcome, without refusals by Listing.Refusal
	Overloaded  uint64                  // commands refused because an inbox was full
	GivenUp     uint64                  // commands given up because the journal stalled
	Batches     Histogram               // commands a shard drained at once
	CommitSize  Histogram               // events stored with one append
	CommitNanos Histogram               // how long an append took
	Seq         uint64                  // the last durable sequence
	Snapshots   uint64                  // snapshots written
	SnapshotSeq uint64                  // the sequence they include
	Failed      error                   // why the engine sells nothing more; nil while it sells
}

func (h *Histogram) add(o Histogram) {
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
	h.Count += o.Count
	h.Sum += o.Sum
}
