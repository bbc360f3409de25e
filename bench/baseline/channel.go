package baseline

import "sync"

// channelSeller is one goroutine that owns the counter, with one unbuffered
// channel of requests and an answer channel for each: the textbook single owner,
// which pays two hand-offs for every order.
type channelSeller struct {
	requests chan request
	answers  sync.Pool // of chan bool
	done     sync.WaitGroup
}

type request struct {
	buyer    []byte
	quantity int64
	answer   chan bool    // for Sell
	look     chan<- int64 // for Remaining
}

func openChannel(t Terms) Seller {
	s := &channelSeller{requests: make(chan request)}
	s.answers.New = func() any { return make(chan bool, 1) }
	s.done.Go(func() {
		c := newCounter(t)
		for r := range s.requests {
			if r.look != nil {
				r.look <- c.remaining
				continue
			}
			r.answer <- c.sell(r.buyer, r.quantity)
		}
	})
	return s
}

func (s *channelSeller) Sell(buyer []byte, quantity int64) (bool, error) {
	answer := s.answers.Get().(chan bool)
	s.requests <- request{buyer: buyer, quantity: quantity, answer: answer}
	accepted := <-answer
	s.answers.Put(answer)
	return accepted, nil
}

func (s *channelSeller) Remaining() int64 {
	look := make(chan int64)
	s.requests <- request{look: look}
	return <-look
}

func (s *channelSeller) Close() error {
	close(s.requests)
	s.done.Wait()
	return nil
}
