package baseline

import "sync"

// goroutineSeller starts a goroutine for each request, which takes a lock and
// answers on a channel: what a handler looks like that spawns its work.
type goroutineSeller struct {
	mu      sync.Mutex
	counter counter
}

func openGoroutine(t Terms) Seller { return &goroutineSeller{counter: newCounter(t)} }

func (s *goroutineSeller) Sell(buyer []byte, quantity int64) (bool, error) {
	answer := make(chan bool, 1)
	go func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer <- s.counter.sell(buyer, quantity)
	}()
	return <-answer, nil
}

func (s *goroutineSeller) Remaining() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counter.remaining
}

func (s *goroutineSeller) Close() error { return nil }
