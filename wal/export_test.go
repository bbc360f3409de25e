package wal

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// EncodeRecord exposes the encoding to tests and benchmarks.
func EncodeRecord(dst []byte, first uint64, events []engine.Event) ([]byte, error) {
	return testEncoder.append(dst, first, events)
}

var testEncoder = newEncoder()

// DecodeRecord calls visit for each event of the record.
func DecodeRecord(first uint64, value []byte, visit func(*engine.Event)) error {
	var d decoder
	if err := d.reset(first, value); err != nil {
		return err
	}
	for {
		e, err := d.scan()
		if err != nil || e == nil {
			return err
		}
		visit(e)
	}
}

// Seal appends the checksum that makes a record of the bytes.
func Seal(body []byte) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(body), xxhash.Sum64(body))
}

// MarkedSeq returns the sequence of the mark.
func (j *Journal) MarkedSeq() uint64 {
	j.markHeld.Lock()
	defer j.markHeld.Unlock()
	return j.mark.seq
}

// Flush indexes all there is, makes tables of it, and compacts them.
func (j *Journal) Flush() error {
	if err := j.awaitIndex(); err != nil {
		return err
	}
	for _, db := range []*pebble.DB{j.db, j.index.db} {
		if err := db.Flush(); err != nil {
			return err
		}
		if err := db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
			return err
		}
	}
	return nil
}

// WriteMark brings the mark up to the durable sequence.
func (j *Journal) WriteMark() error { return j.writeMark() }

// TableBytes returns what the tables of both databases take on the disk.
func (j *Journal) TableBytes() int64 {
	return j.db.Metrics().Total().TablesSize + j.index.db.Metrics().Total().TablesSize
}

// OrderAround reads the order that the event accepted, and calls between after
// it found the event and before it looks where the order went.
func (j *Journal) OrderAround(seq uint64, between func() error) (*engine.Order, error) {
	r, err := j.newOrderReader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	order, err := r.at(seq)
	if err != nil || order == nil {
		return nil, err
	}
	if err := between(); err != nil {
		return nil, err
	}
	if there, err := r.finish(order); err != nil || !there {
		return nil, err
	}
	return order, nil
}
