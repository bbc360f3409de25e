package main

import "github.com/prometheus/client_golang/prometheus"

// storageMetrics show the disk and the journal's own figures on /metrics, beside
// those of the server and the engine.
type storageMetrics struct{ n *node }

var (
	diskFreeDesc    = prometheus.NewDesc("floodgate_disk_free_bytes", "Room left on the disk of the data directory.", nil, nil)
	diskFullDesc    = prometheus.NewDesc("floodgate_disk_full", "1 while selling is stopped because the disk has no room.", nil, nil)
	journalDiskDesc = prometheus.NewDesc("floodgate_journal_disk_bytes", "Room the journal takes.", nil, nil)
	journalLogDesc  = prometheus.NewDesc("floodgate_journal_log_bytes", "Room its write-ahead log takes; a restart reads it.", nil, nil)
	bytesDesc       = prometheus.NewDesc("floodgate_journal_written_bytes_total", "Bytes of records appended, before compression.", nil, nil)
	firstDesc       = prometheus.NewDesc("floodgate_journal_first_sequence", "The first sequence that was not forgotten.", nil, nil)
	indexedDesc     = prometheus.NewDesc("floodgate_journal_indexed_sequence", "The last sequence that orders can be found by buyer or key for.", nil, nil)
	fsyncDesc       = prometheus.NewDesc("floodgate_journal_fsync_seconds", "How long a sync of the log takes, of all since the start.", []string{"quantile"}, nil)
)

func (s storageMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{diskFreeDesc, diskFullDesc, journalDiskDesc, journalLogDesc, bytesDesc, firstDesc, indexedDesc, fsyncDesc} {
		to <- d
	}
}

func (s storageMetrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	full := 0.0
	if s.n.disk.full.Load() {
		full = 1
	}
	j := s.n.journal.Stats()
	gauge(diskFreeDesc, float64(s.n.disk.left.Load()))
	gauge(diskFullDesc, full)
	gauge(journalDiskDesc, float64(j.DiskBytes))
	gauge(journalLogDesc, float64(j.LogBytes))
	gauge(firstDesc, float64(j.First))
	gauge(indexedDesc, float64(j.Indexed))
	gauge(fsyncDesc, j.Fsync.P50.Seconds(), "0.5")
	gauge(fsyncDesc, j.Fsync.P99.Seconds(), "0.99")
	to <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(j.Bytes))
}
