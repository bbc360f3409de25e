package engine

import (
	"runtime"
	"sync/atomic"
	"time"
)

// shard is the one goroutine that owns its products. Its loop is: drain the
// inbox, decide each command, hand what was decided to the committer. It takes
// no lock around a decision and never waits on a socket; it goes on deciding
// while the committer waits for the disk, where enough has gathered to be worth
// it, so batches form by nature, out of what arrived during the last fsync. No answer leaves before the committer has made
// the batch that holds it, and all batches before, durable.
type shard struct {
	inbox  *inbox
	commit *committer
	now    func() int64
	last   int64 // the newest time it used: time does not go back
	due    timeHeap[due]
	met    shardMetrics

	touched []*Listing // products changed by the present batch
	looked  uint64     // keeps the compiler from dropping names.touch
	undone  atomic.Int64
	spare   chan []Event
}

// expireLimit bounds the holds returned between two looks into the inbox.
const expireLimit = 1024

// recheckHolds bounds how long a clock that was set forward goes unnoticed.
const recheckHolds = time.Second

func newShard(inboxLimit int, tell *telling, commit *committer, now func() int64) *shard {
	return &shard{inbox: newInbox(inboxLimit, &commit.busy, tell), commit: commit, now: now, spare: make(chan []Event, 4)}
}

// run works until the inbox is closed and empty.
func (s *shard) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		runtime.Gosched()
		b := s.inbox.take()
		if b == nil && !s.holdsDue() {
			if s.inbox.isClosed() {
				if b = s.inbox.take(); b == nil {
					return
				}
			} else {
				s.wait(timer)
				continue
			}
		}
		s.step(b)
	}
}

func (s *shard) wait(timer *time.Timer) {
	if len(s.due) == 0 {
		<-s.inbox.wake
		return
	}
	timer.Reset(min(recheckHolds, max(time.Duration(s.due[0].deadline-s.time())*time.Millisecond, time.Millisecond)))
	select {
	case <-s.inbox.wake:
	case <-timer.C:
	}
}

// step decides one batch, which may be nil, and the holds that ran out.
func (s *shard) step(b *batch) {
	began := time.Now()
	now := s.time()
	events := s.events()
	events = s.expire(now, events)
	if b != nil {
		for _, c := range b.commands {
			s.looked += c.listing.product.buyers.touch(c.hash)
		}
		for _, c := range b.commands {
			before := len(events)
			events = c.listing.product.Decide(c, now, events)
			s.met.outcomes[c.Answer.Outcome].Add(1)
			if len(events) != before {
				s.touch(c.listing)
				if c.Answer.Deadline != 0 {
					s.schedule(c.listing)
				}
			}
			if c.Op >= OpCreate {
				c.Answer.View = c.listing.product.View()
			}
		}
		s.met.batches.observe(int64(len(b.commands)))
	}
	views := make([]viewChange, 0, len(s.touched))
	for _, l := range s.touched {
		l.touched = false
		views = append(views, viewChange{l, l.product.View()})
	}
	s.touched = s.touched[:0]
	s.met.busy.Add(int64(time.Since(began)))

	if len(events) == 0 && s.undone.Load() == 0 && !s.commit.broken.Load() {
		// Nothing to store, and all it depends on is durable.
		s.keep(events)
		if b != nil {
			s.inbox.finish(b, answered)
		}
		return
	}
	s.undone.Add(1)
	s.commit.submit(decided{shard: s, batch: b, events: events, views: views})
}

func (s *shard) time() int64 {
	s.last = max(s.last, s.now())
	return s.last
}

func (s *shard) touch(l *Listing) {
	if !l.touched {
		l.touched = true
		s.touched = append(s.touched, l)
	}
}

// finish is called by the committer once what the shard decided is durable, or
// is known to have failed.
func (s *shard) finish(d decided, state uint32) {
	if d.batch != nil {
		s.inbox.finish(d.batch, state)
	}
	s.undone.Add(-1)
	s.keep(d.events)
}

func (s *shard) events() []Event {
	select {
	case events := <-s.spare:
		return events
	default:
		return make([]Event, 0, 64)
	}
}

func (s *shard) keep(events []Event) {
	if cap(events) > 1<<14 {
		return // a burst's slice is not kept for ever
	}
	clear(events)
	select {
	case s.spare <- events[:0]:
	default:
	}
}

// schedule makes sure the shard looks at the product when its earliest hold
// runs out.
func (s *shard) schedule(l *Listing) {
	deadline, ok := l.product.NextDeadline()
	if !ok || l.due != 0 && l.due <= deadline {
		return
	}
	l.due = deadline
	s.due.push(due{deadline, l})
}

func (s *shard) holdsDue() bool { return len(s.due) > 0 && s.due[0].deadline <= s.time() }

func (s *shard) expire(now int64, events []Event) []Event {
	for limit := expireLimit; limit > 0 && len(s.due) > 0 && s.due[0].deadline <= now; {
		d := s.due.pop()
		if d.listing.due == d.deadline {
			d.listing.due = 0
		}
		holds, before := &d.listing.product.holds, len(events)
		waiting := len(holds.heap)
		events = d.listing.product.Expire(now, limit, events)
		limit -= waiting - len(holds.heap) // those resolved long ago take time as well
		if len(events) != before {
			s.touch(d.listing)
		}
		s.schedule(d.listing)
	}
	return events
}

// due says when to look at a listing's holds.
type due struct {
	deadline int64
	listing  *Listing
}

func (d due) dueAt() int64 { return d.deadline }
