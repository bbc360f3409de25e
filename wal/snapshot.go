package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// snapshots are the products' states that the engine stores, so that a replay
// need not begin at the beginning.
//
// The chunks of one WriteSnapshots have a generation of their own and are
// written without a sync. Then one synced batch replaces the manifest, which
// says for each product which generation holds and for all of them the
// sequence, and deletes the chunks that it replaces. So all takes effect at
// once, and chunks of a generation beyond the manifest's are the remains of a
// crash.
//
// The manifest: version 1 byte, seq, generation and count uvarint, per product
// its id, generation and number of chunks; xxhash64 of all that. A chunk has
// its xxhash64 at the end.
type snapshots struct {
	writing sync.Mutex // held by WriteSnapshots

	mu         sync.RWMutex // guards the fields below; held while the manifest is replaced
	seq        uint64
	generation uint64 // the last one used
	products   map[string]chunks
}

// chunks says where a product's snapshot is.
type chunks struct {
	generation uint64
	count      uint32
}

const manifestVersion = 1

func (j *Journal) loadSnapshots() error {
	const op = "open"
	path := j.layout.journal()
	s := &j.snapshots
	s.products = make(map[string]chunks)
	value, closer, err := j.db.Get(manifestKey)
	if err == nil {
		err = s.decode(value)
		if err := closer.Close(); err != nil {
			return readError(op, path, err)
		}
		if err != nil {
			return damaged(op, path, "manifest of the snapshots: %w", err)
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return readError(op, path, err)
	}
	if last := j.durable.get(); s.seq > last || s.seq+1 < j.first.Load() {
		return damaged(op, path, "snapshots are as of event %d, events are %d to %d", s.seq, j.first.Load(), last)
	}
	// Chunks beyond the manifest's generation are the remains of a crash.
	orphans := appendSnapshotPrefix(nil, s.generation+1, "")[:9]
	_, end := prefixBounds(snapshotPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: orphans, UpperBound: end})
	if err != nil {
		return readError(op, path, err)
	}
	found := it.First()
	if err := it.Close(); err != nil {
		return readError(op, path, err)
	}
	if !found {
		return nil
	}
	b := j.db.NewBatch()
	defer b.Close()
	if err := b.DeleteRange(orphans, end, nil); err != nil {
		return readError(op, path, err)
	}
	return j.commit(b, pebble.NoSync)
}

func (s *snapshots) encode() []byte {
	b := []byte{manifestVersion}
	b = binary.AppendUvarint(b, s.seq)
	b = binary.AppendUvarint(b, s.generation)
	b = binary.AppendUvarint(b, uint64(len(s.products)))
	for _, product := range s.names() {
		c := s.products[product]
		b = appendString(b, product)
		b = binary.AppendUvarint(b, c.generation)
		b = binary.AppendUvarint(b, uint64(c.count))
	}
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
}

func (s *snapshots) decode(value []byte) error {
	body := len(value) - checksumLen
	if body < 1 {
		return errShort
	}
	if value[0] != manifestVersion {
		return fmt.Errorf("version is %d, want %d", value[0], manifestVersion)
	}
	if binary.BigEndian.Uint64(value[body:]) != xxhash.Sum64(value[:body]) {
		return errChecksum
	}
	d := decoder{in: value[1:body]}
	s.seq, s.generation = d.uvarint(), d.uvarint()
	for n := d.uvarint(); n > 0 && d.failure == nil; n-- {
		product := string(d.bytes())
		s.products[product] = chunks{generation: d.uvarint(), count: d.uint32()}
	}
	if d.failure != nil {
		return d.failure
	}
	if len(d.in) != 0 {
		return fmt.Errorf("it has %d bytes too many", len(d.in))
	}
	return nil
}

// names returns the products in order.
func (s *snapshots) names() []string {
	names := make([]string, 0, len(s.products))
	for product := range s.products {
		names = append(names, product)
	}
	slices.Sort(names)
	return names
}

// SnapshotSeq implements engine.History.
func (j *Journal) SnapshotSeq() uint64 {
	j.snapshots.mu.RLock()
	defer j.snapshots.mu.RUnlock()
	return j.snapshots.seq
}

// Snapshots implements engine.History. Products come in the order of their ids.
func (j *Journal) Snapshots(load func(product string, next func() ([]byte, error)) error) error {
	j.snapshots.mu.RLock()
	names := j.snapshots.names()
	j.snapshots.mu.RUnlock()
	for _, product := range names {
		if _, err := j.Snapshot(product, func(next func() ([]byte, error)) error { return load(product, next) }); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot implements engine.History.
func (j *Journal) Snapshot(product string, load func(next func() ([]byte, error)) error) (bool, error) {
	if err := j.enter(); err != nil {
		return false, err
	}
	defer j.leave()
	const op = "read snapshot of"
	path := j.layout.journal()

	// The iterator is made while the manifest cannot change, so it sees the
	// chunks even if they are replaced and deleted afterwards.
	s := &j.snapshots
	s.mu.RLock()
	where, ok := s.products[product]
	if !ok {
		s.mu.RUnlock()
		return false, nil
	}
	prefix := appendSnapshotPrefix(nil, where.generation, product)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyAfter(prefix)})
	s.mu.RUnlock()
	if err != nil {
		return false, readError(op, path, err)
	}
	defer it.Close()

	read := uint32(0)
	return true, load(func() ([]byte, error) {
		if read == where.count {
			return nil, nil
		}
		step := it.Next
		if read == 0 {
			step = it.First
		}
		if !step() {
			if err := it.Error(); err != nil {
				return nil, readError(op, path, err)
			}
			return nil, damaged(op, path, "chunk %d of %d of %s is missing", read, where.count, product)
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, readError(op, path, err)
		}
		key, body := it.Key(), len(value)-checksumLen
		if len(key) != len(prefix)+4 || binary.BigEndian.Uint32(key[len(prefix):]) != read {
			return nil, damaged(op, path, "chunk %d of %s is not where it should be", read, product)
		}
		if body < 0 || binary.BigEndian.Uint64(value[body:]) != xxhash.Sum64(value[:body]) {
			return nil, damaged(op, path, "chunk %d of %s: %w", read, product, errChecksum)
		}
		read++
		return value[:body:body], nil
	})
}

// WriteSnapshots implements engine.SnapshotStore.
func (j *Journal) WriteSnapshots(seq uint64, products []string, write func(product string, chunk func([]byte) error) error) (err error) {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.leave()
	fail := func(err error) error {
		return &Error{Op: "write snapshots to", Path: j.layout.journal(), Err: err}
	}
	s := &j.snapshots
	s.writing.Lock()
	defer s.writing.Unlock()
	if durable := j.durable.get(); seq > durable || seq < s.seq {
		return fail(fmt.Errorf("sequence %d is not between the last snapshot's %d and the durable %d", seq, s.seq, durable))
	}

	s.mu.Lock()
	s.generation++
	fresh := snapshots{seq: seq, generation: s.generation, products: make(map[string]chunks, len(s.products)+len(products))}
	for product, c := range s.products {
		fresh.products[product] = c
	}
	s.mu.Unlock()

	b := j.db.NewBatch(pebble.WithMaxRetainedSizeBytes(4 << 20))
	defer b.Close()
	for _, product := range products {
		prefix := appendSnapshotPrefix(nil, fresh.generation, product)
		count := uint32(0)
		err := write(product, func(chunk []byte) error {
			b.Reset()
			op := b.SetDeferred(len(prefix)+4, len(chunk)+checksumLen)
			binary.BigEndian.AppendUint32(append(op.Key[:0], prefix...), count)
			binary.BigEndian.AppendUint64(append(op.Value[:0], chunk...), xxhash.Sum64(chunk))
			count++
			if err := op.Finish(); err != nil {
				return fail(err)
			}
			return j.commit(b, pebble.NoSync)
		})
		if err != nil {
			return errors.Join(fail(fmt.Errorf("snapshot of %s: %w", product, err)), j.dropGeneration(b, fresh.generation))
		}
		fresh.products[product] = chunks{fresh.generation, count}
	}

	b.Reset()
	if err := b.Set(manifestKey, fresh.encode(), nil); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, product := range products {
		if old, ok := s.products[product]; ok && old.count > 0 {
			prefix := appendSnapshotPrefix(nil, old.generation, product)
			if err := b.DeleteRange(prefix, keyAfter(prefix), nil); err != nil {
				return fail(err)
			}
		}
	}
	if err := j.commit(b, pebble.Sync); err != nil {
		return err
	}
	s.seq, s.products = fresh.seq, fresh.products
	return nil
}

// dropGeneration deletes the chunks of a generation that no manifest names.
func (j *Journal) dropGeneration(b *pebble.Batch, generation uint64) error {
	b.Reset()
	start := appendSnapshotPrefix(nil, generation, "")[:9]
	if err := b.DeleteRange(start, keyAfter(start), nil); err != nil {
		return err
	}
	return j.commit(b, pebble.NoSync)
}
