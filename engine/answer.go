package engine

import "sync"

// telling is the way from a decided batch to those who sent its commands: a
// queue, and the answering goroutines behind it, one a core. They exist so that
// neither a shard nor the committer spends its time on somebody's socket, and so
// that no goroutine has to be woken for each command.
type telling struct {
	queue chan answers

	mu      sync.Mutex
	untold  int // in the queue, or being told
	allTold sync.Cond
}

// answers are commands of one batch that are to be told how it ended.
type answers struct {
	commands []*Command
	state    uint32
}

const (
	// answersAtOnce is how many commands one answering goroutine takes, so that
	// several cores share a large batch.
	answersAtOnce = 64
	// answersWaiting bounds the queue to the answering goroutines. They never
	// block, so it is full only while all cores are busy; then committing waits.
	answersWaiting = 1024
)

func newTelling() *telling {
	t := &telling{queue: make(chan answers, answersWaiting)}
	t.allTold.L = &t.mu
	return t
}

// all hands the commands, which came by Engine.Send, to the answering
// goroutines.
func (t *telling) all(commands []*Command, state uint32) {
	for len(commands) > 0 {
		n := min(len(commands), answersAtOnce)
		t.mu.Lock()
		t.untold++
		t.mu.Unlock()
		t.queue <- answers{commands[:n:n], state}
		commands = commands[n:]
	}
}

func (t *telling) told() {
	t.mu.Lock()
	if t.untold--; t.untold == 0 {
		t.allTold.Broadcast()
	}
	t.mu.Unlock()
}

// wait returns when nothing is left to tell.
func (t *telling) wait() {
	t.mu.Lock()
	for t.untold > 0 {
		t.allTold.Wait()
	}
	t.mu.Unlock()
}

// tell is an answering goroutine. It ends when the queue is closed.
func (e *Engine) tell() {
	for a := range e.telling.queue {
		for _, c := range a.commands {
			c.answerer.Answered(c, e.settle(c, a.state))
		}
		e.telling.told()
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
