package wal

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/cockroachdb/pebble/v2"
	"github.com/rs/zerolog"
)

// This file is the border to Pebble: its options, and what becomes of its
// errors. What it does when the disk refuses, as read in its source:
//
//   - Commit with Sync, log write or sync failed: the batch is already visible,
//     Logger.Fatalf is called, and if that returns, Commit returns nil.
//   - Commit when the log failed before, or a new log cannot be made: panic
//     with its locks held.
//   - A manifest that cannot be written: Logger.Fatalf from a background
//     goroutine with its locks held.
//   - A flush or compaction that failed: EventListener.BackgroundError, and it
//     is tried again; the log still has the data.
//   - A damaged table: EventListener.DataCorruption, then the error from the
//     read, or another attempt of the compaction.
//
// So every write to the journal goes through commit, where Fatalf does not return and panics
// end; whatever fails there or in Fatalf is final.

// commitFailure carries what Fatalf was told out of Pebble's commit.
type commitFailure struct{ err error }

// fatalCommit is the format of the one Fatalf that is called by the goroutine
// that commits. A test fails if Pebble changes it; then the journal would block
// that goroutine, which is safe.
const fatalCommit = "pebble: fatal commit error: %v"

// commit writes the batch. Nil means that it is durable, or in Pebble's memory
// where the options ask for no sync. After an error the journal has failed.
func (j *Journal) commit(b *pebble.Batch, o *pebble.WriteOptions) (err error) {
	if err := j.err(); err != nil {
		return err
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case commitFailure:
			err = j.fail(r.err)
		case error:
			err = j.fail(r)
		default:
			err = j.fail(fmt.Errorf("%v\n%s", r, debug.Stack()))
		}
	}()
	if err := b.Commit(o); err != nil {
		return j.fail(err)
	}
	return j.err()
}

// fail makes the journal accept nothing more and tells Options.Fatal why. It
// returns the error to give to the caller.
func (j *Journal) fail(cause error) error {
	err := &Error{Op: "write to", Path: j.layout.dir, Hint: hintRestart, Err: fmt.Errorf("%w: %w", ErrFailed, cause)}
	if j.setFailure(err) {
		j.options.Fatal(err)
	}
	return err
}

func (j *Journal) setFailure(err error) bool {
	if !j.failure.CompareAndSwap(nil, &failure{err}) {
		return false
	}
	close(j.failed)
	return true
}

// err returns why the journal accepts nothing more, nil while it does.
func (j *Journal) err() error {
	if f := j.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// Err returns why the journal accepts nothing more: it failed to write, or
// damage was found. It returns nil while all is well.
func (j *Journal) Err() error { return j.err() }

// Failed is closed when Err has something to tell.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// openDB opens or creates a database. A panic is an error: Pebble panics on some
// of the damage it finds.
func openDB(dir string, o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("pebble panicked: %v", r)
		}
	}()
	return pebble.Open(dir, o)
}

func closeDB(db *pebble.DB) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("pebble panicked: %v", r)
		}
	}()
	return db.Close()
}

// journalOptions are those of the database that holds everything but the index.
func (j *Journal) journalOptions(create bool) *pebble.Options {
	o := &pebble.Options{
		FS:                 j.layout.fs,
		FormatMajorVersion: pebble.FormatNewest,
		ErrorIfNotExists:   !create,
		Logger:             pebbleLogger{j},
		Cache:              j.cache,
		MemTableSize:       j.options.MemTableBytes,
		// Four tables of the log's tail may wait for their flush before
		// appends wait; a stall here is a stall of the sale.
		MemTableStopWritesThreshold: 4,
		// Records arrive sorted and never overlap, so a table in level 0 costs
		// reads little; do not let appends wait for compactions.
		L0CompactionThreshold:      4,
		L0CompactionFileThreshold:  100,
		L0StopWritesThreshold:      64,
		LBaseMaxBytes:              256 << 20,
		MaxOpenFiles:               512,
		WALBytesPerSync:            1 << 20,
		BytesPerSync:               1 << 20,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		EventListener:              j.events(j.layout.journal(), hintVerify),
	}
	tuneLevels(o)
	return o
}

// indexOptions are those of the database that holds the index. It has no log:
// what a crash takes is made again from the journal.
func (j *Journal) indexOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          j.layout.fs,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLogger{j},
		Cache:                       j.cache,
		DisableWAL:                  true,
		MemTableSize:                indexMemTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                512,
		BytesPerSync:                1 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		EventListener:               j.events(j.layout.index(), hintIndex),
	}
	tuneLevels(o)
	return o
}

func tuneLevels(o *pebble.Options) {
	o.TargetFileSizes[0] = 16 << 20
	for i := range o.Levels {
		o.Levels[i].BlockSize = 16 << 10
		o.Levels[i].IndexBlockSize = 64 << 10
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
}

func (j *Journal) events(path, hint string) *pebble.EventListener {
	log := j.options.Logger
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			if pebble.IsCorruptionError(err) {
				j.foundDamage(path, hint, err)
				return
			}
			log.Error().Err(err).Str("dir", path).Msg("The journal's housekeeping failed and will be tried again.")
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			j.foundDamage(path, hint, fmt.Errorf("%s: %w", info.Path, info.Details))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			log.Warn().Str("reason", info.Reason).Msg("Appends wait for the journal's housekeeping.")
		},
		WriteStallEnd: func() { log.Info().Msg("Appends do not wait any more.") },
	}
}

// foundDamage is called when Pebble met damage, in the background or for a
// reader. A node must not go on selling on top of it.
func (j *Journal) foundDamage(path, hint string, cause error) {
	err := &Error{Op: "read", Path: path, Hint: hint, Err: fmt.Errorf("%w: %w", ErrDamaged, cause)}
	if j.setFailure(err) {
		j.options.Logger.Error().Err(err).Msg("The journal is damaged and accepts nothing more.")
	}
}

// pebbleLogger passes on what Pebble logs.
type pebbleLogger struct{ j *Journal }

func (l pebbleLogger) Infof(format string, args ...any) {
	if e := l.j.options.Logger.Trace(); e.Enabled() {
		e.Str("part", "pebble").Msgf(format, args...)
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) { l.log(zerolog.ErrorLevel, format, args) }

func (l pebbleLogger) log(level zerolog.Level, format string, args []any) {
	l.j.options.Logger.WithLevel(level).Str("part", "pebble").Msgf(format, args...)
}

// Fatalf never returns: after it, Pebble would report success.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = fmt.Errorf("pebble: %w", cause)
		}
	}
	if format == fatalCommit {
		panic(commitFailure{err})
	}
	if errors.Is(err, pebble.ErrCorruption) || pebble.IsCorruptionError(err) {
		l.j.foundDamage(l.j.layout.dir, hintVerify, err)
	} else {
		_ = l.j.fail(err)
	}
	select {}
}
