package wal

import (
	"sync"
	"sync/atomic"
	"time"
)

// watermark is a sequence that only grows and that readers can wait for. While
// nobody waits, advancing it costs two atomic operations.
type watermark struct {
	value   atomic.Uint64
	waiting atomic.Int32
	mu      sync.Mutex
	moved   chan struct{} // closed when the value moved while somebody waited
}

func (w *watermark) get() uint64 { return w.value.Load() }

func (w *watermark) advance(seq uint64) {
	w.value.Store(seq)
	// A waiter counts itself before it reads the value, so either it sees this
	// value or we see the waiter.
	if w.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
	w.mu.Unlock()
}

// wait returns true once the value has reached seq, false when one of the
// channels was closed or the time is up. Zero time is no bound, a nil channel
// is never closed.
func (w *watermark) wait(seq uint64, stop, closing <-chan struct{}, limit time.Duration) bool {
	if w.value.Load() >= seq {
		return true
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	var expired <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		w.mu.Lock()
		if w.moved == nil {
			w.moved = make(chan struct{})
		}
		moved := w.moved
		w.mu.Unlock()
		if w.value.Load() >= seq {
			return true
		}
		select {
		case <-moved:
		case <-stop:
			return w.value.Load() >= seq
		case <-closing:
			return w.value.Load() >= seq
		case <-expired:
			return w.value.Load() >= seq
		}
	}
}
