package engine

import (
	"sync"
	"time"
)

// telling is the way from a decided batch to those who sent its commands: a
// queue, and the answering goroutines behind it, one a core. They exist so that
// neither a shard nor the committer spends its time on somebody's socket, and so
// that no goroutine has to be woken for each command.
type telling struct {
	queue chan answers

	tellers int

	mu      sync.Mutex
	queued  int       // ever, in what the queue takes
	told    int       // of them
	awaited int       // how many told the committer waits for
	reached sync.Cond // told is awaited
}

// answers are commands of one batch that are to be told how it ended.
type answers struct {
	commands []*Command
	state    uint32
	at       time.Time // when that was known
}

const (
	// answersAtOnce is how many commands one answering goroutine takes, so that
	// all cores share a batch.
	answersAtOnce = 16
	// answersWaiting bounds the queue to the answering goroutines. They never
	// block, so it is full only while all cores are busy; then committing waits.
	answersWaiting = 4096
)

func newTelling(tellers int) *telling {
	t := &telling{queue: make(chan answers, answersWaiting), tellers: tellers}
	t.reached.L = &t.mu
	return t
}

// all hands the commands, which came by Engine.Send, to the answering
// goroutines.
func (t *telling) all(commands []*Command, state uint32) {
	if len(commands) == 0 {
		return
	}
	now := time.Now()
	t.mu.Lock()
	t.queued += (len(commands) + answersAtOnce - 1) / answersAtOnce
	t.mu.Unlock()
	for len(commands) > 0 {
		n := min(len(commands), answersAtOnce)
		t.queue <- answers{commands[:n:n], state, now}
		commands = commands[n:]
	}
}

func (t *telling) toldOne() {
	t.mu.Lock()
	if t.told++; t.told == t.awaited {
		t.reached.Broadcast()
	}
	t.mu.Unlock()
}

// wait returns when what is in the queue now left it; the last may still be on
// its way. What comes later is not waited for: shards that only refuse answer
// without the committer, and could keep the queue from ever being empty. Only
// the committer calls it.
func (t *telling) wait() {
	t.mu.Lock()
	t.awaited = t.queued - t.tellers
	for t.told < t.awaited {
		t.reached.Wait()
	}
	t.mu.Unlock()
}

// tell is an answering goroutine. It ends when the queue is closed.
func (e *Engine) tell() {
	for a := range e.telling.queue {
		for _, c := range a.commands {
			c.answerer.Answered(c, a.at, e.settle(c, a.state))
		}
		e.telling.toldOne()
	}
}

// settle completes a command whose batch ended in that state.
func (e *Engine) settle(c *Command, state uint32) error {
	switch state {
	case answered:
		e.name(c)
		return nil
	case withdrawn:
		return ErrStalled
	case unknown:
		c.abandoned = true
		return ErrUnknown
	}
	c.abandoned = true
	return ErrJournalFailed
}
