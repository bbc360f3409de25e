package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"floodgate/engine"
)

// A record is the value of one 'j' key: up to maxRecord events with consecutive
// sequences.
//
//	version      1 byte
//	first        uvarint   sequence of the first event, as in the key
//	count        uvarint   1 to maxRecord
//	time         varint    of the first event
//	events
//	checksum     8 bytes   xxhash64 of all before it, big-endian
//
// An event:
//
//	tag          1 byte    kind (5 bits) and the flags below
//	terms        uvarint   with tagTerms: which terms; their count so far: new ones follow
//	time         varint    since the event before
//	extras       1 byte    with tagExtras: the flags below
//	buyer        string
//	key          string    with tagKey
//	quantity     varint    with extraQuantity; else 1
//	number       uvarint   with extraNumber; else one past the terms' last
//	settings               with extraSettings
//
// Terms are what orders of one product and run share, so that an order costs
// its buyer's name and three bytes:
//
//	product string, run uvarint, price varint, currency string,
//	held 1 byte, hold varint (with held: deadline less time), number uvarint (the first)
//
// A string is a uvarint of its length, then its bytes. A varint is zigzag. The
// layout is part of the format version in format.go and pinned by golden files.
const (
	recordVersion = 1
	maxRecord     = 1024
	checksumLen   = 8
	minEvent      = 3 // tag, time, empty buyer

	kindMask  = 0x1f
	tagTerms  = 0x20
	tagKey    = 0x40
	tagExtras = 0x80

	extraQuantity = 0x01
	extraNumber   = 0x02
	extraRestock  = 0x04
	extraSettings = 0x08
	extraMask     = extraQuantity | extraNumber | extraRestock | extraSettings
)

// terms are what the events that refer to them share. Number is the next order's.
type terms struct {
	product  string
	run      uint32
	price    int64
	currency string
	held     bool
	hold     int64
}

// encoder makes records. It is used again and again and keeps its rooms.
type encoder struct {
	list []terms
	next []uint32 // the number after the last event of the terms
	find map[terms]int
}

func newEncoder() *encoder { return &encoder{find: make(map[terms]int)} }

// append appends the record of the events, whose sequences must follow each
// other from first. It allocates nothing once its rooms have grown.
func (x *encoder) append(dst []byte, first uint64, events []engine.Event) ([]byte, error) {
	clear(x.list)
	x.list, x.next = x.list[:0], x.next[:0]
	clear(x.find)

	start, current := len(dst), -1
	at := events[0].At
	dst = append(dst, recordVersion)
	dst = binary.AppendUvarint(dst, first)
	dst = binary.AppendUvarint(dst, uint64(len(events)))
	dst = binary.AppendVarint(dst, at)
	for i := range events {
		e := &events[i]
		if e.Seq != first+uint64(i) {
			return dst[:start], fmt.Errorf("event %d has sequence %d, want %d", i, e.Seq, first+uint64(i))
		}
		if e.Kind == 0 || e.Kind > kindMask {
			return dst[:start], fmt.Errorf("event %d has unknown kind %d", e.Seq, e.Kind)
		}
		held, hold := e.Deadline != 0, int64(0)
		if held {
			hold = e.Deadline - e.At
		}

		tag, extras := byte(e.Kind), byte(0)
		if current < 0 || !x.list[current].match(e, held, hold) {
			tag |= tagTerms
		}
		fresh := false
		if tag&tagTerms != 0 {
			t := terms{e.Product, e.Run, e.Price, e.Currency, held, hold}
			n, ok := x.find[t]
			if !ok {
				n, fresh = len(x.list), true
				x.find[t] = n
				x.list = append(x.list, t)
				x.next = append(x.next, e.Number)
			}
			current = n
		}
		if len(e.Key) > 0 {
			tag |= tagKey
		}
		if e.Quantity != 1 {
			extras |= extraQuantity
		}
		if e.Number != x.next[current] {
			extras |= extraNumber
		}
		if e.Restock {
			extras |= extraRestock
		}
		if e.Settings != nil {
			extras |= extraSettings
		}
		if extras != 0 {
			tag |= tagExtras
		}

		dst = append(dst, tag)
		if tag&tagTerms != 0 {
			dst = binary.AppendUvarint(dst, uint64(current))
			if fresh {
				dst = appendString(dst, e.Product)
				dst = binary.AppendUvarint(dst, uint64(e.Run))
				dst = binary.AppendVarint(dst, e.Price)
				dst = appendString(dst, e.Currency)
				if held {
					dst = binary.AppendVarint(append(dst, 1), hold)
				} else {
					dst = append(dst, 0)
				}
				dst = binary.AppendUvarint(dst, uint64(e.Number))
			}
		}
		dst = binary.AppendVarint(dst, e.At-at)
		at = e.At
		if extras != 0 {
			dst = append(dst, extras)
		}
		dst = binary.AppendUvarint(dst, uint64(len(e.Buyer)))
		dst = append(dst, e.Buyer...)
		if tag&tagKey != 0 {
			dst = binary.AppendUvarint(dst, uint64(len(e.Key)))
			dst = append(dst, e.Key...)
		}
		if extras&extraQuantity != 0 {
			dst = binary.AppendVarint(dst, e.Quantity)
		}
		if extras&extraNumber != 0 {
			dst = binary.AppendUvarint(dst, uint64(e.Number))
		}
		if extras&extraSettings != 0 {
			dst = appendSettings(dst, e.Settings)
		}
		x.next[current] = e.Number + 1
	}
	return binary.BigEndian.AppendUint64(dst, xxhash.Sum64(dst[start:])), nil
}

func (t *terms) match(e *engine.Event, held bool, hold int64) bool {
	return t.run == e.Run && t.price == e.Price && t.held == held && t.hold == hold &&
		t.product == e.Product && t.currency == e.Currency
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendSettings(dst []byte, s *engine.Settings) []byte {
	dst = appendString(dst, s.ID)
	dst = appendString(dst, s.Name)
	dst = appendString(dst, s.Currency)
	for _, n := range [...]int64{s.Price, s.LimitPerBuyer, s.HoldSeconds, s.StartsAt, s.EndsAt} {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

var (
	errShort    = errors.New("record ends early")
	errChecksum = errors.New("record has a wrong checksum")
)

// decoder reads records. Whatever the bytes, it returns an error rather than
// panic, and allocates no more than the bytes justify. It is used again and
// again; the event it returns is valid until the next call.
type decoder struct {
	in      []byte // what is left of the events
	first   uint64
	count   int
	done    int // events returned
	at      int64
	list    []terms
	next    []uint32
	current int
	names   map[string]string
	event   engine.Event
	failure error // of the take functions
}

// reset begins with the record stored under the given first sequence.
func (d *decoder) reset(first uint64, value []byte) error {
	d.in, d.first, d.count, d.done, d.failure = nil, first, 0, 0, nil
	clear(d.list)
	d.list, d.next, d.current = d.list[:0], d.next[:0], -1
	if len(value) < 1+checksumLen {
		return errShort
	}
	if value[0] != recordVersion {
		return fmt.Errorf("record has version %d, want %d", value[0], recordVersion)
	}
	body := value[:len(value)-checksumLen]
	if binary.BigEndian.Uint64(value[len(body):]) != xxhash.Sum64(body) {
		return errChecksum
	}
	d.in = body[1:]
	stored, count := d.uvarint(), d.uvarint()
	d.at = d.varint()
	switch {
	case d.failure != nil:
		return d.failure
	case stored != first:
		return fmt.Errorf("record of sequence %d stands under %d", stored, first)
	case count == 0 || count > maxRecord || count > uint64(len(d.in)/minEvent):
		return fmt.Errorf("record has %d events in %d bytes", count, len(d.in))
	case first == 0 || first > maxSequence-count:
		return fmt.Errorf("record has the impossible sequence %d", first)
	}
	d.count = int(count)
	return nil
}

// maxSequence is far from overflow and far beyond what a node can write.
const maxSequence = 1 << 62

// last returns the sequence of the record's last event.
func (d *decoder) last() uint64 { return d.first + uint64(d.count) - 1 }

// scan returns the next event, nil after the last.
func (d *decoder) scan() (*engine.Event, error) {
	if d.done == d.count {
		if len(d.in) != 0 {
			return nil, fmt.Errorf("record has %d bytes after its last event", len(d.in))
		}
		return nil, nil
	}
	tag := d.byte()
	if tag&tagTerms != 0 {
		d.selectTerms()
	}
	if d.failure != nil {
		return nil, d.failure
	}
	if d.current < 0 {
		return nil, errors.New("event has no terms")
	}
	t := &d.list[d.current]
	d.at += d.varint()
	extras := byte(0)
	if tag&tagExtras != 0 {
		if extras = d.byte(); extras&^extraMask != 0 {
			return nil, fmt.Errorf("event has unknown extras %#x", extras)
		}
	}
	e := &d.event
	*e = engine.Event{
		Seq: d.first + uint64(d.done), At: d.at, Kind: engine.Kind(tag & kindMask),
		Product: t.product, Run: t.run, Number: d.next[d.current], Quantity: 1,
		Buyer: d.bytes(), Price: t.price, Currency: t.currency, Restock: extras&extraRestock != 0,
	}
	if t.held {
		e.Deadline = d.at + t.hold
	}
	if tag&tagKey != 0 {
		e.Key = d.bytes()
	}
	if extras&extraQuantity != 0 {
		e.Quantity = d.varint()
	}
	if extras&extraNumber != 0 {
		e.Number = d.uint32()
	}
	if extras&extraSettings != 0 {
		e.Settings = d.settings()
	}
	if d.failure != nil {
		return nil, d.failure
	}
	if e.Kind == 0 {
		return nil, errors.New("event has no kind")
	}
	d.next[d.current] = e.Number + 1
	d.done++
	return e, nil
}

// seek returns the event with the given sequence, which the record must hold.
func (d *decoder) seek(seq uint64) (*engine.Event, error) {
	for {
		e, err := d.scan()
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, fmt.Errorf("record of %d to %d has no sequence %d", d.first, d.last(), seq)
		}
		if e.Seq == seq {
			return e, nil
		}
	}
}

func (d *decoder) selectTerms() {
	n := d.uvarint()
	switch {
	case d.failure != nil:
	case n < uint64(len(d.list)):
		d.current = int(n)
	case n > uint64(len(d.list)):
		d.failure = fmt.Errorf("event has terms %d of %d", n, len(d.list))
	default:
		t := terms{product: d.name(), run: d.uint32(), price: d.varint(), currency: d.name()}
		switch d.byte() {
		case 0:
		case 1:
			t.held, t.hold = true, d.varint()
		default:
			if d.failure == nil {
				d.failure = errors.New("terms are neither held nor not")
			}
		}
		number := d.uint32()
		if d.failure == nil {
			d.current = len(d.list)
			d.list = append(d.list, t)
			d.next = append(d.next, number)
		}
	}
}

func (d *decoder) settings() *engine.Settings {
	s := &engine.Settings{ID: d.name(), Name: d.name(), Currency: d.name()}
	for _, n := range [...]*int64{&s.Price, &s.LimitPerBuyer, &s.HoldSeconds, &s.StartsAt, &s.EndsAt} {
		*n = d.varint()
	}
	return s
}

func (d *decoder) fail() {
	d.in = nil
	if d.failure == nil {
		d.failure = errShort
	}
}

func (d *decoder) byte() byte {
	if len(d.in) == 0 {
		d.fail()
		return 0
	}
	b := d.in[0]
	d.in = d.in[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.in)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *decoder) varint() int64 {
	n, size := binary.Varint(d.in)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *decoder) uint32() uint32 {
	n := d.uvarint()
	if n != uint64(uint32(n)) {
		d.fail()
		return 0
	}
	return uint32(n)
}

// bytes returns a string as a part of the value, nil where it is empty.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.in)) {
		d.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	b := d.in[:n:n]
	d.in = d.in[n:]
	return b
}

// maxNames bounds what name remembers.
const maxNames = 4096

// name returns a string that outlives the value. Products and currencies come
// again and again, so the decoder remembers them.
func (d *decoder) name() string {
	b := d.bytes()
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if d.names == nil || len(d.names) == maxNames {
		d.names = make(map[string]string)
	}
	s := string(b)
	d.names[s] = s
	return s
}
