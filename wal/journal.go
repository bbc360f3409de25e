package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

var (
	_ engine.Journal       = (*Journal)(nil)
	_ engine.SnapshotStore = (*Journal)(nil)
)

// Journal is a node's journal, ledger and snapshots. Its invariants:
//
//   - The durable sequence is published after the commit that made it durable
//     returned nil, and nothing beyond it is told to anybody. Pebble shows a
//     batch to readers before it is synced, so every reader checks.
//   - Index cursor <= durable sequence, and mark <= durable sequence.
//   - Sequences in the database have no gaps from first to durable.
//   - After a failed write nothing is written any more.
//
// One goroutine at a time appends; everything else may be called by any number.
//
// Goroutines: the appender is the engine's. The indexer (index.go) follows the
// durable sequence and writes the index. The marker (below) writes the mark.
// Both end when the journal is closed. Pebble has its own for flushes,
// compactions and the log.
type Journal struct {
	options Options
	layout  layout
	lock    io.Closer
	cache   *pebble.Cache
	db      *pebble.DB
	who     identity
	ids     *engine.IDs

	durable watermark
	indexed watermark
	first   atomic.Uint64 // first sequence not pruned
	lastAt  atomic.Int64

	appending sync.Mutex // held by Append; guards the fields up to the next blank line
	encoder   *encoder
	batch     *pebble.Batch
	room      []byte // the record being made
	keyRoom   []byte

	mark     *mark
	markKick chan struct{}
	markHeld sync.Mutex // guards writes of the mark

	indexKick chan struct{}
	index     indexer

	snapshots snapshots
	cursors   cursors
	pruning   sync.Mutex

	counts counters

	failure  atomic.Pointer[failure]
	failed   chan struct{} // closed when failure was set
	users    atomic.Int64  // calls under way
	closed   atomic.Bool
	closing  chan struct{} // closed when Close begins
	drained  chan struct{} // signalled when the last call under way ended
	workers  sync.WaitGroup
	close    sync.Once
	closeErr error
}

// failure is why the journal accepts nothing more.
type failure struct{ err error }

// counters are of this process's life.
type counters struct{ batches, events, bytes atomic.Uint64 }

// Open opens the journal in the directory, and makes it where it is not there.
func Open(options Options) (*Journal, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	j := &Journal{
		options: options.withDefaults(), encoder: newEncoder(),
		markKick: make(chan struct{}, 1), indexKick: make(chan struct{}, 1),
		failed: make(chan struct{}), closing: make(chan struct{}), drained: make(chan struct{}, 1),
	}
	if err := j.open(); err != nil {
		return nil, errors.Join(err, j.release())
	}
	j.batch = j.db.NewBatch(pebble.WithInitialSizeBytes(64<<10), pebble.WithMaxRetainedSizeBytes(4<<20))
	j.workers.Add(2)
	go j.runMarker()
	go j.runIndexer()
	return j, nil
}

// open takes the steps of opening. What it acquired is released by release.
func (j *Journal) open() (err error) {
	if j.layout, j.lock, err = openLayout(&j.options); err != nil {
		return err
	}
	j.cache = pebble.NewCache(j.options.CacheBytes)
	version, err := j.layout.readFormat()
	if err != nil {
		return err
	}
	if version == 0 {
		if err := j.create(); err != nil {
			return err
		}
	}
	if j.who, err = j.layout.readNode(); err != nil {
		return err
	}
	j.ids = engine.NewIDs(j.who.secret)
	if err := j.openMark(); err != nil {
		return err
	}
	if ok, err := j.layout.exists(j.layout.journal()); err != nil || !ok {
		return damaged("open", j.layout.journal(), "the database is missing")
	}
	if j.db, err = openDB(j.layout.journal(), j.journalOptions(false)); err != nil && version == 0 && j.mark.seq == 0 {
		// The attempt to make it was cut off, and nothing was stored in it.
		err = errors.Join(j.layout.fs.RemoveAll(j.layout.journal()), j.create())
		if err == nil {
			j.db, err = openDB(j.layout.journal(), j.journalOptions(false))
		}
	}
	if err != nil {
		return openError("open", j.layout.journal(), err)
	}
	if err := j.load(); err != nil {
		return err
	}
	if last := j.durable.get(); version == 0 && last > 0 {
		return damaged("open", j.layout.format(), "it is missing, and the database holds %d events", last)
	}
	if last := j.durable.get(); last < j.mark.seq {
		if !j.options.AcceptDataLoss {
			return &Error{
				Op: "open", Path: j.layout.journal(), Hint: hintLost,
				Err: fmt.Errorf("%w: it ends at event %d, and %d was stored", ErrDamaged, last, j.mark.seq),
			}
		}
		j.options.Logger.Warn().Uint64("journal", last).Uint64("mark", j.mark.seq).
			Msg("The journal ends before its mark; the loss was accepted.")
	}
	if j.mark.seq != j.durable.get() {
		if err := j.mark.write(j.durable.get()); err != nil {
			return &Error{Op: "write", Path: j.layout.mark(), Hint: hintRestart, Err: err}
		}
	}
	if err := j.openIndex(); err != nil {
		return err
	}
	// The format vouches for everything else, so it comes last.
	if version == 0 {
		if err := j.layout.writeFormat(); err != nil {
			return &Error{Op: "write", Path: j.layout.format(), Err: err}
		}
	}
	return nil
}

// create makes all of the directory but its FORMAT. It may find the remains of
// an attempt that did not end, in any state; no event was stored then.
func (j *Journal) create() error {
	l := j.layout
	fail := func(err error) error { return &Error{Op: "create", Path: l.dir, Err: err} }
	if err := l.syncAbove(); err != nil {
		return fail(err)
	}
	database, err := l.exists(l.journal())
	if err != nil {
		return fail(err)
	}
	if !database {
		if m, _, err := openMark(l.fs, l.mark()); err == nil {
			defer m.close() // it is opened again by who called
			if m.seq > 0 {
				return damaged("open", l.dir, "%d events were stored, and it has neither a FORMAT nor a database", m.seq)
			}
		}
		fresh := l.path("journal.new")
		if err := l.fs.RemoveAll(fresh); err != nil && !isMissing(err) {
			return fail(err)
		}
		// Pebble makes a database's first log in its oldest format, which
		// cannot tell damage from a torn tail. Opened again, it is in ours.
		db, err := openDB(fresh, j.journalOptions(true))
		if err != nil {
			return fail(err)
		}
		if err := db.Close(); err != nil {
			return fail(err)
		}
		if err := l.fs.Rename(fresh, l.journal()); err != nil {
			return fail(err)
		}
		if err := l.syncDir(l.dir); err != nil {
			return fail(err)
		}
	}
	if node, err := l.exists(l.node()); err != nil || !node {
		if err == nil {
			err = l.writeNode()
		}
		if err != nil {
			return fail(err)
		}
	}
	m, _, err := openMark(l.fs, l.mark())
	switch {
	case err == nil:
		err = m.close()
	case isMissing(err) || errors.Is(err, errNoMark): // the attempt ended in the middle of its first slot
		if err = createMark(l.fs, l.mark(), 0); err == nil {
			err = l.syncDir(l.dir)
		}
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func (j *Journal) openMark() error {
	path := j.layout.mark()
	m, torn, err := openMark(j.layout.fs, path)
	if errors.Is(err, errNoMark) || isMissing(err) {
		if j.options.AcceptDataLoss {
			if err := createMark(j.layout.fs, path, 0); err != nil {
				return &Error{Op: "create", Path: path, Err: err}
			}
			m, torn, err = openMark(j.layout.fs, path)
		} else {
			return damaged("read", path, "%w", err)
		}
	}
	if err != nil {
		return &Error{Op: "read", Path: path, Err: err}
	}
	if torn {
		j.options.Logger.Warn().Str("file", path).Uint64("mark", m.seq).Msg("The mark's newer slot is torn; the older one holds.")
	}
	j.mark = m
	return nil
}

// load reads what the journal keeps in memory, and checks it against itself.
func (j *Journal) load() error {
	path := j.layout.journal()
	first, err := loadNumber(j.db, firstKey)
	if err != nil {
		return readError("open", path, err)
	}
	first = max(first, 1)
	last := first - 1
	lower, upper := prefixBounds(recordPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return readError("open", path, err)
	}
	defer it.Close()
	var d decoder
	if it.Last() {
		if err := readRecord(it, &d); err != nil {
			return readError("read the last record of", path, err)
		}
		last = d.last()
		for {
			e, err := d.scan()
			if err != nil {
				return damaged("read the last record of", path, "%w", err)
			}
			if e == nil {
				break
			}
			j.lastAt.Store(e.At)
		}
	}
	if err := it.Error(); err != nil {
		return readError("read", path, err)
	}
	j.first.Store(first)
	j.durable.value.Store(last)
	if err := j.loadSnapshots(); err != nil {
		return err
	}
	return j.loadCursors()
}

// loadNumber returns the number stored under the key, 0 for none.
func loadNumber(db pebble.Reader, key []byte) (uint64, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: %q has %d bytes", ErrDamaged, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// readRecord begins to read the record that the iterator stands on.
func readRecord(it *pebble.Iterator, d *decoder) error {
	first, ok := recordSeq(it.Key())
	if !ok {
		return fmt.Errorf("%w: %q is no record's key", ErrDamaged, it.Key())
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	if err := d.reset(first, value); err != nil {
		return fmt.Errorf("%w: record %d: %w", ErrDamaged, first, err)
	}
	return nil
}

// Append implements engine.Journal. All events of a call are in one batch, so
// after a crash they are there together or not at all.
func (j *Journal) Append(events []engine.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := j.enter(); err != nil {
		return err
	}
	defer j.leave()
	j.appending.Lock()
	defer j.appending.Unlock()

	next := j.durable.get() + 1
	if events[0].Seq != next {
		return j.appendError(fmt.Errorf("first event has sequence %d, want %d", events[0].Seq, next))
	}
	j.batch.Reset()
	size := 0
	for rest := events; len(rest) > 0; {
		n := min(len(rest), maxRecord)
		var err error
		if j.room, err = j.encoder.append(j.room[:0], next, rest[:n]); err != nil {
			return j.appendError(err)
		}
		op := j.batch.SetDeferred(recordKeyLen, len(j.room))
		appendRecordKey(op.Key[:0], next)
		copy(op.Value, j.room)
		if err := op.Finish(); err != nil {
			return j.appendError(err)
		}
		size += len(j.room)
		next, rest = next+uint64(n), rest[n:]
	}
	for i := range events {
		if e := &events[i]; e.Kind > engine.OrderAccepted && e.Kind.Order() {
			if err := j.setTransition(j.batch, e); err != nil {
				return j.appendError(err)
			}
		}
	}
	if err := j.commit(j.batch, j.writeOptions()); err != nil {
		return j.appendError(err)
	}
	j.counts.batches.Add(1)
	j.counts.events.Add(uint64(len(events)))
	j.counts.bytes.Add(uint64(size))
	j.lastAt.Store(events[len(events)-1].At)
	j.durable.advance(next - 1)

	kick(j.markKick)
	if next-j.indexed.get() > indexLag {
		kick(j.indexKick)
	}
	return nil
}

func (j *Journal) appendError(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	return &Error{Op: "append to", Path: j.layout.journal(), Err: err}
}

func (j *Journal) writeOptions() *pebble.WriteOptions {
	if j.options.NoSync {
		return pebble.NoSync
	}
	return pebble.Sync
}

// kick wakes whoever reads from the channel, if it is not awake already.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// DurableSeq returns the last sequence that is on stable storage.
func (j *Journal) DurableSeq() uint64 { return j.durable.get() }

// FirstSeq returns the first sequence that was not pruned.
func (j *Journal) FirstSeq() uint64 { return j.first.Load() }

// LastAt returns the time of the last event in Unix milliseconds, 0 for none. A
// clock that is behind it was set back.
func (j *Journal) LastAt() int64 { return j.lastAt.Load() }

// IDs returns the maker of this node's order ids.
func (j *Journal) IDs() *engine.IDs { return j.ids }

// NodeID returns the UUID of this data directory.
func (j *Journal) NodeID() [16]byte { return j.who.id }

// Wait returns the durable sequence as soon as it is beyond after, or when stop
// is closed, whatever it is then.
func (j *Journal) Wait(after uint64, stop <-chan struct{}) (uint64, error) {
	if err := j.enter(); err != nil {
		return j.DurableSeq(), err
	}
	defer j.leave()
	j.durable.wait(after+1, stop, j.closing, 0)
	return j.DurableSeq(), nil
}

// runMarker writes the mark when the journal has moved, at most once an
// interval.
func (j *Journal) runMarker() {
	defer j.workers.Done()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-j.closing:
			return
		case <-j.markKick:
		}
		if err := j.writeMark(); err != nil {
			return // the journal failed and has said so
		}
		pause.Reset(j.options.MarkInterval)
		select {
		case <-j.closing:
			return
		case <-pause.C:
		}
	}
}

// writeMark brings the mark up to the durable sequence.
func (j *Journal) writeMark() error {
	j.markHeld.Lock()
	defer j.markHeld.Unlock()
	seq := j.durable.get()
	if seq == j.mark.seq {
		return nil
	}
	if err := j.err(); err != nil {
		return err
	}
	if j.options.NoSync {
		// What we call durable here may be in memory only; the mark must not
		// promise it before it is on the disk.
		b := j.db.NewBatch()
		defer b.Close()
		if err := b.LogData([]byte("mark"), nil); err != nil {
			return j.fail(err)
		}
		if err := j.commit(b, pebble.Sync); err != nil {
			return err
		}
	}
	if err := j.mark.write(seq); err != nil {
		return j.fail(err)
	}
	return nil
}

// Close writes the mark, stops the goroutines, waits for calls under way and
// closes the database. It may be called twice.
func (j *Journal) Close() error {
	j.close.Do(func() {
		j.closed.Store(true)
		close(j.closing)
		if err := j.err(); err != nil && errors.Is(err, ErrFailed) {
			// Pebble may hold its locks for ever; touching it could hang, and
			// there is nothing in it to save. The process should end.
			j.closeErr = errors.Join(err, j.lock.Close())
			return
		}
		for j.users.Load() != 0 {
			<-j.drained
		}
		j.workers.Wait()
		err := j.writeMark()
		j.closeErr = errors.Join(err, j.batch.Close(), j.release())
	})
	return j.closeErr
}

// release closes what open acquired.
func (j *Journal) release() error {
	var faults []error
	if j.index.db != nil {
		// It has no log, so what is in memory must become a table.
		if j.err() == nil {
			faults = append(faults, j.index.db.Flush())
		}
		faults = append(faults, closeDB(j.index.db))
	}
	if j.db != nil {
		faults = append(faults, closeDB(j.db))
	}
	if j.cache != nil {
		j.cache.Unref()
	}
	if j.mark != nil {
		faults = append(faults, j.mark.close())
	}
	if j.lock != nil {
		faults = append(faults, j.lock.Close())
	}
	if err := errors.Join(faults...); err != nil {
		return &Error{Op: "close", Path: j.layout.dir, Err: err}
	}
	return nil
}

// enter begins a call, unless the journal is closed.
func (j *Journal) enter() error {
	j.users.Add(1)
	if j.closed.Load() {
		j.leave()
		return &Error{Op: "use", Path: j.layout.dir, Err: ErrClosed}
	}
	return nil
}

func (j *Journal) leave() {
	if j.users.Add(-1) == 0 && j.closed.Load() {
		kick(j.drained)
	}
}
