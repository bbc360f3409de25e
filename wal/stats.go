package wal

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Stats tell how the journal is doing.
type Stats struct {
	First   uint64 // first sequence not pruned
	Durable uint64
	Indexed uint64
	Marked  uint64

	// Since the journal was opened.
	Batches uint64
	Events  uint64
	Bytes   uint64 // of records, before compression

	Fsync     Latency
	DiskBytes uint64 // of the journal and its index
	LogBytes  uint64 // of its write-ahead log
}

// Latency sums up a histogram. The quantiles are upper bounds of its buckets.
type Latency struct {
	Count          uint64
	Mean, P50, P99 time.Duration
}

// Stats returns the figures of the moment.
func (j *Journal) Stats() Stats {
	s := Stats{
		First: j.first.Load(), Durable: j.durable.get(), Indexed: j.indexed.get(),
		Batches: j.counts.batches.Load(), Events: j.counts.events.Load(), Bytes: j.counts.bytes.Load(),
	}
	if j.enter() != nil {
		return s
	}
	defer j.leave()
	j.markHeld.Lock()
	s.Marked = j.mark.seq
	j.markHeld.Unlock()
	m := j.db.Metrics()
	s.DiskBytes = m.DiskSpaceUsage() + j.index.db.Metrics().DiskSpaceUsage()
	s.LogBytes = m.WAL.PhysicalSize
	s.Fsync = latency(m.LogWriter.FsyncLatency)
	return s
}

// FsyncLatency returns Pebble's histogram of its log's syncs, in nanoseconds.
func (j *Journal) FsyncLatency() prometheus.Metric { return j.db.Metrics().LogWriter.FsyncLatency }

func latency(h prometheus.Metric) (l Latency) {
	var out dto.Metric
	if h == nil || h.Write(&out) != nil || out.Histogram.GetSampleCount() == 0 {
		return l
	}
	l.Count = out.Histogram.GetSampleCount()
	l.Mean = time.Duration(out.Histogram.GetSampleSum() / float64(l.Count))
	for _, b := range out.Histogram.GetBucket() {
		if l.P50 == 0 && b.GetCumulativeCount()*2 >= l.Count {
			l.P50 = time.Duration(b.GetUpperBound())
		}
		if b.GetCumulativeCount()*100 >= l.Count*99 {
			l.P99 = time.Duration(b.GetUpperBound())
			break
		}
	}
	return l
}
