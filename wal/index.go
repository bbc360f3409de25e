package wal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// The index is made from the journal, by one goroutine that follows the durable
// sequence: for an order with a key, its id to its sequence; for an order with
// a buyer, the buyer's hash and the sequence. An append does not pay for it. A
// read first waits until the index has what was durable when the read began.
//
// It is a database of its own, without a log. In the journal's database a batch
// of index entries would hold up the batches of orders behind it until it is in
// memory (milliseconds, see DESIGN.md), and would double what an fsync writes.
// Each batch carries the index cursor, and tables are made in order, so after a
// crash the index is what its cursor says and the rest is made again. An index
// that is damaged or ahead of the journal when it is opened is thrown away.
const (
	// indexBatch is how many events are worth waking the indexer for, and how
	// many it takes at once. Sorted entries of a large batch go into Pebble's
	// memory next to each other, which halves what they cost.
	indexBatch = 64 << 10
	// indexLag is how far the index may fall behind while orders come in fast.
	// A sale's worst minute is not the time to sort its orders: whoever asks
	// has it brought up to date, and otherwise it waits for a quiet moment.
	// This is less than a second's work for the one who asks first.
	indexLag = 1 << 20
	// indexQuiet is how many events in one IndexInterval are a quiet moment.
	indexQuiet = 1000
	// indexMemTable bounds what is made again after a crash.
	indexMemTable = 32 << 20
)

type idEntry struct {
	id  engine.OrderID
	seq uint64
}

type buyerEntry struct{ hash, seq uint64 }

// indexer belongs to its goroutine.
type indexer struct {
	db     *pebble.DB
	d      decoder
	ids    []idEntry
	buyers []buyerEntry
	batch  *pebble.Batch
	room   []byte
}

// openIndex opens the index, or begins a new one.
func (j *Journal) openIndex() error {
	x, path := &j.index, j.layout.index()
	indexed, err := x.open(j)
	if err == nil && indexed > j.durable.get() {
		err = fmt.Errorf("%w: the index is at %d, the journal ends at %d", ErrDamaged, indexed, j.durable.get())
	}
	if err = openError("open", path, err); errors.Is(err, ErrDamaged) {
		j.options.Logger.Warn().Err(err).Msg("The index is made again from the journal.")
		if x.db != nil {
			_ = closeDB(x.db) // it is thrown away
			x.db = nil
		}
		if err := j.layout.fs.RemoveAll(path); err != nil {
			return &Error{Op: "remove", Path: path, Err: err}
		}
		// Pebble may have reported the damage of what is gone now.
		j.failure.Store(nil)
		j.failed = make(chan struct{})
		indexed, err = x.open(j)
		err = openError("open", path, err)
	}
	if err != nil {
		return err
	}
	j.indexed.value.Store(max(indexed, j.first.Load()-1))
	return nil
}

// open opens the database and returns its cursor.
func (x *indexer) open(j *Journal) (indexed uint64, err error) {
	if x.db, err = openDB(j.layout.index(), j.indexOptions()); err != nil {
		x.db = nil
		return 0, err
	}
	return loadNumber(x.db, indexedKey)
}

func (j *Journal) runIndexer() {
	defer j.workers.Done()
	x := &j.index
	x.batch = x.db.NewBatch(pebble.WithInitialSizeBytes(64<<10), pebble.WithMaxRetainedSizeBytes(8<<20))
	defer x.batch.Close()
	tick := time.NewTicker(j.options.IndexInterval)
	defer tick.Stop()
	for last := j.durable.get(); ; {
		select {
		case <-j.closing:
			return
		case <-tick.C:
			now := j.durable.get()
			quiet := now-last <= indexQuiet
			last = now
			if !quiet {
				continue
			}
		case <-j.indexKick:
		}
		for j.indexed.get() < j.durable.get() {
			if err := j.indexSome(); err != nil {
				j.indexFailed(err)
				return
			}
			select {
			case <-j.closing:
				return
			default:
			}
		}
	}
}

// indexFailed tells that the index stopped. Reads that need it will time out;
// an unreadable journal sells no more either.
func (j *Journal) indexFailed(err error) {
	err = readError("index", j.layout.journal(), err)
	if j.setFailure(err) {
		j.options.Logger.Error().Err(err).Msg("The journal could not be indexed and accepts nothing more.")
	}
}

// indexSome indexes at most indexBatch events, or one record.
func (j *Journal) indexSome() error {
	x := &j.index
	x.ids, x.buyers = x.ids[:0], x.buyers[:0]
	from, durable := j.indexed.get(), j.durable.get()
	lower, upper := prefixBounds(recordPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	next := from + 1
	for ok := it.SeekGE(appendRecordKey(nil, next)); next <= durable && next <= from+indexBatch; ok = it.Next() {
		if !ok {
			if err := it.Error(); err != nil {
				return err
			}
			return fmt.Errorf("%w: event %d is missing", ErrDamaged, next)
		}
		if err := readRecord(it, &x.d); err != nil {
			return err
		}
		if x.d.first != next {
			return fmt.Errorf("%w: event %d is missing, record %d stands in its place", ErrDamaged, next, x.d.first)
		}
		for {
			e, err := x.d.scan()
			if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if e == nil {
				break
			}
			if id, ok := indexedID(e); ok {
				x.ids = append(x.ids, idEntry{id, e.Seq})
			}
			if hash, ok := indexedBuyer(e); ok {
				x.buyers = append(x.buyers, buyerEntry{hash, e.Seq})
			}
		}
		next = x.d.last() + 1
	}
	if err := x.write(j, next-1); err != nil {
		return err
	}
	j.indexed.advance(next - 1)
	return nil
}

// indexedID returns the id under which the index has the event, if it has it.
func indexedID(e *engine.Event) (engine.OrderID, bool) {
	if e.Kind != engine.OrderAccepted || len(e.Key) == 0 {
		return engine.OrderID{}, false
	}
	return engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key), true
}

// indexedBuyer returns the hash under which the index has the event, if it has it.
func indexedBuyer(e *engine.Event) (uint64, bool) {
	if e.Kind != engine.OrderAccepted || len(e.Buyer) == 0 {
		return 0, false
	}
	return buyerHash(e.Buyer), true
}

// write stores the entries, and that everything up to seq is indexed.
func (x *indexer) write(j *Journal, seq uint64) error {
	slices.SortFunc(x.buyers, func(a, b buyerEntry) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Compare(b.seq, a.seq)
	})
	slices.SortFunc(x.ids, func(a, b idEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	x.batch.Reset()
	for i := range x.buyers {
		op := x.batch.SetDeferred(buyerKeyLen, 0)
		appendBuyerKey(op.Key[:0], x.buyers[i].hash, x.buyers[i].seq)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	for i := range x.ids {
		x.room = appendIDKey(x.room[:0], x.ids[i].id)
		key := len(x.room)
		x.room = binary.AppendUvarint(x.room, x.ids[i].seq)
		if err := x.batch.Set(x.room[:key], x.room[key:], nil); err != nil {
			return err
		}
	}
	x.room = binary.BigEndian.AppendUint64(x.room[:0], seq)
	if err := x.batch.Set(indexedKey, x.room, nil); err != nil {
		return err
	}
	return j.commit(x.batch, pebble.NoSync) // there is no log to sync
}

// awaitIndex returns when the index has all that is durable now.
func (j *Journal) awaitIndex() error {
	durable := j.durable.get()
	if j.indexed.get() >= durable {
		return nil
	}
	kick(j.indexKick)
	if j.indexed.wait(durable, j.failed, j.closing, j.options.ReadTimeout) {
		return nil
	}
	if err := j.err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: the index is at %d of %d", ErrBehind, j.indexed.get(), durable)
}
