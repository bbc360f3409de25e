package engine

// holds are the orders that wait for a confirm, earliest deadline first. A
// resolved one stays until its deadline; whoever takes it out looks at its
// status.
type holds struct {
	heap  timeHeap[hold]
	grace int64 // no hold runs out before this time, in Unix milliseconds
}

type hold struct {
	deadline int64
	number   uint32
	buyer    uint32
	quantity int32
}

func (h hold) dueAt() int64 { return h.deadline }

// deadline returns when a hold with the given journaled deadline runs out.
func (h *holds) deadline(journaled int64) int64 { return max(journaled, h.grace) }

func (h *holds) next() (int64, bool) {
	if len(h.heap) == 0 {
		return 0, false
	}
	return h.deadline(h.heap[0].deadline), true
}

// pop takes out the earliest hold that has run out at the given time.
func (h *holds) pop(now int64) (hold, bool) {
	if deadline, ok := h.next(); !ok || deadline > now {
		return hold{}, false
	}
	return h.heap.pop(), true
}
