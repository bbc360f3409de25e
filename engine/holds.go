package engine

// holds are the orders that wait for a confirm, earliest deadline first. A
// resolved one stays until its deadline; whoever takes it out looks at its
// status.
type holds struct {
	heap timeHeap[hold]

	// Holds that were there when the node came back: those of orders below a
	// number do not run out before a time, in Unix milliseconds.
	grace  int64
	graced uint32
}

type hold struct {
	deadline  int64 // when it runs out
	journaled int64 // when it would have
	number    uint32
	buyer     uint32
	quantity  int32
}

func (h hold) dueAt() int64 { return h.deadline }

// allow lets no hold of orders below that number run out before the given time.
func (h *holds) allow(grace int64, below uint32) {
	h.grace, h.graced = grace, below
	for i := range h.heap {
		h.heap[i].deadline = max(h.heap[i].deadline, grace)
	}
	// What is raised to one time stays in order: a heap is still a heap.
}

// deadline returns when the order's hold, with the given journaled deadline,
// runs out.
func (h *holds) deadline(number uint32, journaled int64) int64 {
	if number < h.graced {
		return max(journaled, h.grace)
	}
	return journaled
}

func (h *holds) next() (int64, bool) {
	if len(h.heap) == 0 {
		return 0, false
	}
	return h.heap[0].deadline, true
}

// pop takes out the earliest hold that has run out at the given time.
func (h *holds) pop(now int64) (hold, bool) {
	if deadline, ok := h.next(); !ok || deadline > now {
		return hold{}, false
	}
	return h.heap.pop(), true
}
