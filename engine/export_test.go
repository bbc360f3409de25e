package engine

import "sync/atomic"

// What the tests in package engine_test may see of the inside.

// ExpireLimit bounds the holds that a shard looks at in one step.
const ExpireLimit = expireLimit

// MaxUndurable bounds what is decided and not durable.
const MaxUndurable = maxUndurable

// GatherUpTo is how many commands wait for one another while the journal is busy.
const GatherUpTo = gatherUpTo

// NamesSplit is how many names fit before the table is cut into parts.
const NamesSplit = namesSplit

// PassedOver pushes one command while the journal is busy, and returns how often
// the journal was ready, and busy again at once, until the shard may take it.
func PassedOver() (times int) {
	var busy atomic.Bool
	busy.Store(true)
	in := newInbox(2*gatherUpTo, &busy, nil)
	if _, err := in.push(&Command{}); err != nil {
		return -1
	}
	for ; times < 10 && in.take() == nil; times++ {
		in.ready()
		<-in.wake
	}
	return times
}

// Names opens the table of names, and lets a test choose the hash.
type Names struct{ names }

// NoName is the number of a name that is not there.
const NoName = noName

func (n *Names) Add(name []byte) uint32                     { return n.add(nameHash(name), name) }
func (n *Names) Find(name []byte) uint32                    { return n.find(nameHash(name), name) }
func (n *Names) FindHashed(hash uint64, name []byte) uint32 { return n.find(hash, name) }
func (n *Names) Get(number uint32) []byte                   { return n.get(number) }
func (n *Names) Len() int                                   { return n.len() }

func (n *Names) AddHashed(hash uint64, name []byte) uint32 {
	if number := n.find(hash, name); number != noName {
		return number
	}
	return n.insert(hash, name)
}

// Column opens the column of numbers.
type Column struct{ column[int] }

func (c *Column) Push(v int)    { c.push(v) }
func (c *Column) At(i int) *int { return c.at(i) }
func (c *Column) Len() int      { return c.len() }

// Heap opens the heap of times.
type Heap struct{ h timeHeap[heapTime] }

type heapTime int64

func (t heapTime) dueAt() int64 { return int64(t) }

func (h *Heap) Push(v int64) { h.h.push(heapTime(v)) }
func (h *Heap) Pop() int64   { return int64(h.h.pop()) }
func (h *Heap) Len() int     { return len(h.h) }

// ExpireStep does what a shard does about the product's holds between two looks
// into its inbox. It returns how many holds it returned and how many it took out
// of the heap.
func ExpireStep(p *Product, now int64) (returned, taken int) {
	s := newShard(1, nil, new(committer), func() int64 { return now })
	s.schedule(&Listing{product: p})
	before := len(p.holds.heap)
	events := s.expire(now, nil)
	return len(events), before - len(p.holds.heap)
}

// Observe counts the values in a histogram and reads it.
func Observe(values ...int64) Histogram {
	var h histogram
	for _, v := range values {
		h.observe(v)
	}
	return h.read()
}
