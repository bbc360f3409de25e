package wal

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"floodgate/engine"
)

// The first byte of a key says what it is. Keys b, i and mindexed are in the
// index's database, all others in the journal's. Numbers are big-endian, so that keys
// sort as their numbers do; a product's id is followed by a zero byte, which no
// id holds.
//
//	b  xxhash64 of the buyer, ^sequence        buyer's orders, newest first
//	c  name                                    cursor
//	i  16 byte order id                        sequence of an order with a key
//	j  first sequence                          record
//	m  name                                    one of the values below
//	s  generation, product, 0, chunk number    snapshot chunk
//	t  product, 0, run, number                 where an order went after it was accepted
const (
	buyerPrefix      = 'b'
	cursorPrefix     = 'c'
	idPrefix         = 'i'
	recordPrefix     = 'j'
	snapshotPrefix   = 's'
	transitionPrefix = 't'
)

var (
	firstKey    = []byte("mfirst")     // first sequence not pruned, 8 bytes; absent: 1
	indexedKey  = []byte("mindexed")   // last sequence in the index, 8 bytes; absent: 0
	manifestKey = []byte("msnapshots") // see snapshot.go; absent: none
)

const recordKeyLen = 1 + 8

func appendRecordKey(dst []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, recordPrefix), first)
}

// recordSeq returns the first sequence of the record that a key names.
func recordSeq(key []byte) (uint64, bool) {
	if len(key) != recordKeyLen || key[0] != recordPrefix {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

func appendIDKey(dst []byte, id engine.OrderID) []byte {
	return append(append(dst, idPrefix), id[:]...)
}

func buyerHash(buyer []byte) uint64 { return xxhash.Sum64(buyer) }

func appendBuyerKey(dst []byte, hash, seq uint64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, buyerPrefix), hash)
	return binary.BigEndian.AppendUint64(dst, ^seq)
}

const buyerKeyLen = 1 + 8 + 8

func appendTransitionKey(dst []byte, product string, run, number uint32) []byte {
	dst = append(append(append(dst, transitionPrefix), product...), 0)
	dst = binary.BigEndian.AppendUint32(dst, run)
	return binary.BigEndian.AppendUint32(dst, number)
}

// splitTransitionKey is the inverse of appendTransitionKey.
func splitTransitionKey(key []byte) (product []byte, run, number uint32, ok bool) {
	at := len(key) - 8
	if at < 2 || key[0] != transitionPrefix || key[at-1] != 0 {
		return nil, 0, 0, false
	}
	return key[1 : at-1], binary.BigEndian.Uint32(key[at:]), binary.BigEndian.Uint32(key[at+4:]), true
}

func appendSnapshotPrefix(dst []byte, generation uint64, product string) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, snapshotPrefix), generation)
	return append(append(dst, product...), 0)
}

func appendCursorKey(dst []byte, name string) []byte {
	return append(append(dst, cursorPrefix), name...)
}

// keyAfter returns the first key that does not start with the prefix.
func keyAfter(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func prefixBounds(prefix byte) (lower, upper []byte) { return []byte{prefix}, []byte{prefix + 1} }
