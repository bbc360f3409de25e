package baseline

import "sync"

// mutexSeller is a counter and a map under one lock.
type mutexSeller struct {
	mu      sync.Mutex
	counter counter
}

func openMutex(t Terms) Seller { return &mutexSeller{counter: newCounter(t)} }

func (s *mutexSeller) Sell(buyer []byte, quantity int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counter.sell(buyer, quantity), nil
}

func (s *mutexSeller) Remaining() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counter.remaining
}

func (s *mutexSeller) Close() error { return nil }
