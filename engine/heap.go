package engine

// timeHeap is a binary heap of things that fall due, earliest first. It is not
// container/heap because that allocates for each element it is given.
type timeHeap[T interface{ dueAt() int64 }] []T

func (h *timeHeap[T]) push(x T) {
	a := append(*h, x)
	*h = a
	for i := len(a) - 1; i > 0; {
		parent := (i - 1) / 2
		if a[parent].dueAt() <= a[i].dueAt() {
			return
		}
		a[parent], a[i] = a[i], a[parent]
		i = parent
	}
}

// pop takes out the earliest element. The heap may not be empty.
func (h *timeHeap[T]) pop() T {
	a := *h
	top, last := a[0], len(a)-1
	a[0] = a[last]
	var none T
	a[last] = none
	a = a[:last]
	*h = a
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if right := child + 1; right < last && a[right].dueAt() < a[child].dueAt() {
			child = right
		}
		if a[i].dueAt() <= a[child].dueAt() {
			return top
		}
		a[i], a[child] = a[child], a[i]
		i = child
	}
}
