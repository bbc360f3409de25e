package wal_test

import (
	"flag"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a journal leaves a goroutine behind. A journal whose disk
// failed is abandoned with Pebble's goroutines in it: the process should have
// ended there. Those, and only those, are let pass.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("rapid.checks", strconv.Itoa(100/slow)); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2/internal/genericcache.(*shard[...]).releaseLoop"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*cleanupManager).mainLoop"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreAnyFunction("floodgate/wal.pebbleLogger.Fatalf"),
	)
}
