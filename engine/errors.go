package engine

import "errors"

// Refused before anything was decided: definitely nothing happened, and the
// same command may be sent again.
var (
	// ErrOverloaded: the shard's inbox is full.
	ErrOverloaded = errors.New("engine: inbox full")
	// ErrStalled: the command waited for its shard longer than Options.StallAfter.
	ErrStalled = errors.New("engine: the journal does not keep up")
	// ErrClosed: the engine is shutting down.
	ErrClosed = errors.New("engine: closed")
	// ErrTooManyProducts: Options.MaxProducts is reached.
	ErrTooManyProducts = errors.New("engine: too many products")
)

// Decided, but not known to be durable: the command may or may not have
// happened. Only a retry with the same idempotency key can tell.
var (
	// ErrUnknown: the journal did not confirm in time.
	ErrUnknown = errors.New("engine: outcome unknown")
	// ErrJournalFailed: the journal reported an error. The engine sells nothing
	// more: memory is ahead of the disk, and only a replay may repair it.
	ErrJournalFailed = errors.New("engine: journal failed")
)

// Found while recovering.
var (
	// ErrDamaged: what the journal holds contradicts itself.
	ErrDamaged = errors.New("engine: journal damaged")
)
