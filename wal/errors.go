package wal

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// Returned by Open.
var (
	// ErrLocked: another journal, here or in another process, has the directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrFormatTooNew: a newer Floodgate wrote the directory.
	ErrFormatTooNew = errors.New("data directory has a newer format")
)

// Returned by Open and by everything that reads.
var (
	// ErrDamaged: what is on disk is not what was written. It is an
	// engine.ErrDamaged, too.
	ErrDamaged = fmt.Errorf("data directory is damaged: %w", engine.ErrDamaged)
	// ErrPruned: the events asked for were given up by Prune.
	ErrPruned = errors.New("events were pruned")
	// ErrBehind: a read would have told what is not durable, or not indexed,
	// and did not become so in time. Asking again is harmless.
	ErrBehind = errors.New("journal is behind")
)

// Returned by everything.
var (
	// ErrFailed: the disk refused a write. What was being written may or may
	// not be there; only a restart can tell.
	ErrFailed = errors.New("journal failed")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
)

// The ways out that an error names.
const (
	hintVerify  = "stop the node and run `floodgate verify`; restore the directory from a backup if it confirms the damage"
	hintIndex   = "stop the node and remove that directory; it is made again from the journal"
	hintLost    = "restore the newest copy of the directory, or accept the loss explicitly (--accept-data-loss)"
	hintLocked  = "stop the process that uses it, or choose another directory"
	hintNewer   = "run the Floodgate that wrote it, or a newer one"
	hintRestart = "check the disk and its free space, then restart: a replay finds out what was stored"
)

// Error says what was being done, where, and what an operator can do about it.
type Error struct {
	Op   string // what was being done
	Path string // the file or directory
	Hint string // the way out; may be empty
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	s := "wal: " + e.Op + " " + e.Path + ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// damaged returns an error that says what is wrong with the data at path.
func damaged(op, path, format string, args ...any) error {
	return &Error{Op: op, Path: path, Hint: hintVerify, Err: fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))}
}

// readError wraps what reading an open database returned: corruption becomes
// ErrDamaged, our own errors stay as they are.
func readError(op, path string, err error) error {
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case errors.Is(err, ErrDamaged):
		return &Error{Op: op, Path: path, Hint: hintVerify, Err: err}
	case pebble.IsCorruptionError(err), isMissing(err):
		return damaged(op, path, "%w", err)
	}
	return &Error{Op: op, Path: path, Err: err}
}

// openError wraps what opening an existing database returned. The system
// refusing a call (no space, no permission, I/O error) says nothing about the
// data. All else does: a complete database opens.
func openError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var number syscall.Errno
	if !pebble.IsCorruptionError(err) && !isMissing(err) && errors.As(err, &number) {
		return &Error{Op: op, Path: path, Hint: hintRestart, Err: err}
	}
	return damaged(op, path, "%w", err)
}

func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
