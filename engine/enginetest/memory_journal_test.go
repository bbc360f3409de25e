package enginetest_test

import (
	"testing"

	"floodgate/engine/enginetest"
)

func TestMemoryJournal(t *testing.T) {
	enginetest.TestJournal(t, func(*testing.T) enginetest.JournalFixture {
		return enginetest.JournalFixture{Journal: enginetest.NewMemoryJournal()}
	})
}
