package drive_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"floodgate/bench/drive"
)

// Ensure every call is made once, whatever the producers.
func TestRun(t *testing.T) {
	for _, producers := range []int{1, 3, 64} {
		seen := make([]atomic.Int32, 1000)
		r, err := drive.Run(producers, len(seen), func(_, i int) error {
			seen[i].Add(1)
			time.Sleep(time.Microsecond)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range seen {
			if n := seen[i].Load(); n != 1 {
				t.Fatalf("%d producers: call %d was made %d times", producers, i, n)
			}
		}
		if r.Elapsed <= 0 || r.P50 < time.Microsecond || r.P99 < r.P50 {
			t.Errorf("%d producers: %+v", producers, r)
		}
	}
}

// Ensure a fault is told, so that no benchmark counts what did not happen.
func TestRunError(t *testing.T) {
	fault := errors.New("fault")
	_, err := drive.Run(4, 100, func(_, i int) error {
		if i == 50 {
			return fault
		}
		return nil
	})
	if !errors.Is(err, fault) {
		t.Errorf("got %v, want the fault", err)
	}
}
