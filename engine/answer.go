package engine

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

// answer tells the commands that were sent, until the queue is closed. There is
// one such goroutine a core. It exists so that neither a shard nor the committer
// spends its time on somebody's socket, and so that no goroutine has to be woken
// for each command.
func (e *Engine) answer(queue <-chan answers) {
	for a := range queue {
		for _, c := range a.commands {
			c.answerer.Answered(c, e.settle(c, a.state))
		}
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
