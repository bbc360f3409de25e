package baseline

import "sync/atomic"

// atomicSeller is one word and a compare-and-swap: the least that never
// oversells. It does not know who bought, so it has no limit per buyer and no
// order to show; it is here as the floor, not as a way to run a sale.
type atomicSeller struct{ remaining atomic.Int64 }

func openAtomic(t Terms) Seller {
	s := &atomicSeller{}
	s.remaining.Store(t.Stock)
	return s
}

func (s *atomicSeller) Sell(_ []byte, quantity int64) (bool, error) {
	for {
		left := s.remaining.Load()
		if quantity > left {
			return false, nil
		}
		if s.remaining.CompareAndSwap(left, left-quantity) {
			return true, nil
		}
	}
}

func (s *atomicSeller) Remaining() int64 { return s.remaining.Load() }

func (s *atomicSeller) Close() error { return nil }
