package engine

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
)

// Status is where an order stands. The numbers are on disk: append only.
type Status uint8

const (
	Held      Status = 1 // waits for a confirm until its deadline
	Confirmed Status = 2 // final, unless refunded
	Cancelled Status = 3 // final; the units went back
	Expired   Status = 4 // final; the units went back
	Refunded  Status = 5 // final; the units went back if the refund said so
)

var statusNames = [...]string{Held: "held", Confirmed: "confirmed", Cancelled: "cancelled", Expired: "expired", Refunded: "refunded"}

// String returns the status as the HTTP interface spells it.
func (s Status) String() string {
	if int(s) < len(statusNames) && statusNames[s] != "" {
		return statusNames[s]
	}
	return "unknown"
}

// Order is what a buyer got, as the ledger tells it. Times are Unix
// milliseconds; money is in minor units of an ISO 4217 currency.
type Order struct {
	ID         OrderID
	Seq        uint64 // sequence of the event that accepted it
	Product    string
	Run        uint32
	Number     uint32 // place in its run, from 0
	Buyer      string // empty: anonymous
	Key        string // idempotency key; empty: none
	Quantity   int64
	Price      int64
	Currency   string
	AcceptedAt int64
	Deadline   int64  // of the hold; 0: the order was confirmed at once
	Status     Status // as of the last durable event
	Settled    bool   // Postgres has it
}

// Accepted returns the status the order had when it was accepted. A retry with
// the same idempotency key is answered with that one, whatever came later.
func (o *Order) Accepted() Status { return acceptedStatus(o.Deadline) }

func acceptedStatus(deadline int64) Status {
	if deadline != 0 {
		return Held
	}
	return Confirmed
}

// OrderID is a UUID (RFC 9562). Orders with an idempotency key have version 5,
// so that every node names a retry alike; the others have version 7.
type OrderID [16]byte

// orderNamespace is the name space of version 5 order ids (RFC 9562, 5.5).
var orderNamespace = [16]byte{0x6f, 0x1d, 0x0a, 0x9e, 0x52, 0x1b, 0x4c, 0x3e, 0x9d, 0x7a, 0x21, 0xc4, 0x5b, 0x88, 0xe0, 0x13}

// KeyedID returns the id of the order that buyer's idempotency key decides.
func KeyedID(product string, run uint32, buyer, key []byte) OrderID {
	var room [16 + 64 + 5 + 64 + 1 + 64]byte
	b := append(room[:0], orderNamespace[:]...)
	b = append(b, product...)
	b = append(b, keySeparator)
	b = binary.BigEndian.AppendUint32(b, run)
	b = append(b, buyer...)
	b = append(b, keySeparator)
	b = append(b, key...)
	sum := sha1.Sum(b)
	var id OrderID
	copy(id[:], sum[:16])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// keySeparator may stand in no buyer and no key, so joining them is exact.
const keySeparator = 0x1f

const (
	sequenceBits = 40
	maxSequence  = 1<<sequenceBits - 1
)

// IDs makes version 7 order ids. An id carries its order's sequence, so the
// ledger finds the order without an index, and 34 bits of a keyed hash, so
// nobody can guess the id of somebody else's order.
//
//	48 bits Unix milliseconds | 7 | 12 bits hash | 2 | 22 bits hash | 40 bits sequence
type IDs struct{ block cipher.Block }

// NewIDs returns the maker of a node's ids. The secret is made once per data
// directory and kept there.
func NewIDs(secret [16]byte) *IDs {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic("engine: AES refused a 16 byte key: " + err.Error())
	}
	return &IDs{block: block}
}

// Sequential returns the id of the order accepted by event seq at the given
// time in Unix milliseconds. Scratch avoids an allocation; nil is fine.
func (x *IDs) Sequential(seq uint64, at int64, scratch *[32]byte) OrderID {
	if scratch == nil {
		scratch = new([32]byte)
	}
	plain, sum := scratch[:16], scratch[16:]
	binary.BigEndian.PutUint64(plain[:8], seq)
	binary.BigEndian.PutUint64(plain[8:], uint64(at))
	x.block.Encrypt(sum, plain)

	var id OrderID
	binary.BigEndian.PutUint64(id[:8], uint64(at)<<16|0x7000|uint64(binary.BigEndian.Uint16(sum)&0x0fff))
	low := uint64(binary.BigEndian.Uint32(sum[4:])&0x3fffff)<<sequenceBits | seq&maxSequence
	binary.BigEndian.PutUint64(id[8:], 1<<63|low)
	return id
}

// Version returns the UUID's version.
func (id OrderID) Version() int { return int(id[6] >> 4) }

// Sequence returns the sequence a version 7 id claims. Whoever uses it compares
// the whole id with that of the order found there.
func (id OrderID) Sequence() uint64 { return binary.BigEndian.Uint64(id[8:]) & maxSequence }

// AppendText appends the id in the form 8-4-4-4-12. It never fails.
func (id OrderID) AppendText(dst []byte) ([]byte, error) {
	const digits = "0123456789abcdef"
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst, nil
}

// String returns the id in the form 8-4-4-4-12.
func (id OrderID) String() string {
	b, _ := id.AppendText(make([]byte, 0, 36))
	return string(b)
}

// ParseOrderID reads the form 8-4-4-4-12, in either case. It reports false for
// anything else.
func ParseOrderID(s []byte) (id OrderID, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	at := 0
	for _, part := range [...][2]int{{0, 8}, {9, 13}, {14, 18}, {19, 23}, {24, 36}} {
		n, err := hex.Decode(id[at:], s[part[0]:part[1]])
		if err != nil {
			return OrderID{}, false
		}
		at += n
	}
	return id, true
}
