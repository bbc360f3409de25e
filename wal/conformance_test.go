package wal_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"floodgate/engine/enginetest"
	"floodgate/wal"
)

// TestConformance holds the journal on disk to the same contract as the one in
// memory, with and without sync.
func TestConformance(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		name := "sync"
		if noSync {
			name = "nosync"
		}
		t.Run(name, func(t *testing.T) {
			enginetest.TestJournal(t, func(t *testing.T) enginetest.JournalFixture {
				options := wal.Options{Dir: "/data", FS: vfs.NewMem(), NoSync: noSync, Logger: testLog(t), MemTableBytes: 4 << 20}
				j := open(t, options)
				return enginetest.JournalFixture{Journal: j, Reopen: func(t *testing.T) enginetest.JournalUnderTest {
					if err := j.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, options)
				}}
			})
		})
	}
}

func testLog(t *testing.T) zerolog.Logger {
	return zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
}

// open opens a journal that is closed with the test.
func open(t testing.TB, options wal.Options) *wal.Journal {
	t.Helper()
	j, err := wal.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}
