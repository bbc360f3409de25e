package engine

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// A snapshot is a product's state as chunks of about a MiB, so that neither
// writing nor reading needs the whole of it at once. A chunk is one byte that
// says what it holds and then entries of that kind; all numbers are varints.
// The first chunk is the head. The journal keeps chunks as opaque bytes.
const (
	chunkHead   byte = 1 // version, settings, counters, the earlier runs whose keys follow
	chunkBuyers byte = 2 // name, units
	chunkStatus byte = 3 // a byte an order
	chunkHolds  byte = 4 // deadline, number, buyer+1, quantity
	chunkKeys   byte = 5 // name, number, quantity; of the present run or the chunkPast before
	chunkPast   byte = 6 // which of the earlier runs the chunkKeys after it belong to

	snapshotVersion = 1
	chunkSize       = 1 << 20
)

// chunkWriter gathers entries into chunks.
type chunkWriter struct {
	kind  byte
	chunk []byte
	flush func([]byte) error
	err   error
}

func (w *chunkWriter) begin(kind byte) {
	w.end()
	w.kind, w.chunk = kind, append(w.chunk[:0], kind)
}

func (w *chunkWriter) end() {
	if len(w.chunk) > 1 && w.err == nil {
		w.err = w.flush(w.chunk)
	}
	w.chunk = w.chunk[:0]
}

// entry makes room for one more entry.
func (w *chunkWriter) entry() {
	if len(w.chunk) >= chunkSize {
		w.begin(w.kind)
	}
}

func (w *chunkWriter) uint(v uint64)  { w.chunk = binary.AppendUvarint(w.chunk, v) }
func (w *chunkWriter) int(v int64)    { w.chunk = binary.AppendVarint(w.chunk, v) }
func (w *chunkWriter) bytes(b []byte) { w.uint(uint64(len(b))); w.chunk = append(w.chunk, b...) }

func (w *chunkWriter) flag(v bool) {
	if v {
		w.uint(1)
	} else {
		w.uint(0)
	}
}

// WriteSnapshot hands the product's state to flush, chunk by chunk.
func (p *Product) WriteSnapshot(flush func(chunk []byte) error) error {
	w := &chunkWriter{flush: flush} // a chunk grows as it must: most products are small
	w.begin(chunkHead)
	w.uint(snapshotVersion)
	s := p.settings
	w.bytes([]byte(s.ID))
	w.bytes([]byte(s.Name))
	w.bytes([]byte(s.Currency))
	for _, v := range []int64{s.Price, s.LimitPerBuyer, s.HoldSeconds, s.StartsAt, s.EndsAt, int64(p.run), int64(p.begun), p.stock, p.remaining, p.held, p.sold} {
		w.int(v)
	}
	w.flag(p.paused)
	w.flag(p.opened)
	w.flag(p.closed)
	w.uint(uint64(len(p.past)))
	for i := range p.past {
		past := &p.past[i]
		w.uint(uint64(past.run))
		w.uint(past.begun)
		w.int(past.until)
	}

	w.begin(chunkBuyers)
	for i := range p.buyers.len() {
		w.entry()
		w.bytes(p.buyers.get(uint32(i)))
		w.int(int64(*p.units.at(i)))
	}
	w.begin(chunkStatus)
	for i := range p.status.len() {
		w.entry()
		w.chunk = append(w.chunk, byte(*p.status.at(i)))
	}
	w.begin(chunkHolds)
	// Sorted, so that all histories of a state write the same bytes.
	held := slices.Clone(p.holds.heap)
	slices.SortFunc(held, func(a, b hold) int {
		return cmp.Or(cmp.Compare(a.journaled, b.journaled), cmp.Compare(a.number, b.number))
	})
	for _, h := range held {
		if *p.status.at(int(h.number)) != Held {
			continue
		}
		w.entry()
		w.int(h.journaled)
		w.uint(uint64(h.number))
		w.uint(uint64(h.buyer + 1)) // noName wraps to 0
		w.uint(uint64(h.quantity))
	}
	w.keys(&p.keys, &p.bought)
	for i := range p.past {
		w.begin(chunkPast)
		w.uint(uint64(i))
		w.keys(&p.past[i].keys, &p.past[i].bought)
	}
	w.end()
	return w.err
}

func (w *chunkWriter) keys(keys *names, decided *column[bought]) {
	w.begin(chunkKeys)
	for i := range keys.len() {
		w.entry()
		w.bytes(keys.get(uint32(i)))
		b := decided.at(i)
		w.uint(uint64(b.number))
		w.uint(uint64(b.quantity))
	}
}

// chunkReader reads one chunk. After a fault all it returns is zero.
type chunkReader struct {
	rest []byte
	bad  bool
}

func (r *chunkReader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	return take(r, v, n)
}

func (r *chunkReader) int() int64 {
	v, n := binary.Varint(r.rest)
	return take(r, v, n)
}

func take[T any](r *chunkReader, v T, n int) T {
	if n <= 0 {
		var zero T
		r.bad, r.rest = true, nil
		return zero
	}
	r.rest = r.rest[n:]
	return v
}

func (r *chunkReader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// name reads bytes that fit into names.
func (r *chunkReader) name() []byte {
	b := r.bytes()
	if len(b) > 255 {
		r.bad, r.rest = true, nil
		return nil
	}
	return b
}

// readHead reads a snapshot's first chunk.
func readHead(chunk []byte) (*Product, error) {
	if len(chunk) == 0 || chunk[0] != chunkHead {
		return nil, fmt.Errorf("%w: a snapshot does not begin with its head", ErrDamaged)
	}
	r := &chunkReader{rest: chunk[1:]}
	if v := r.uint(); v != snapshotVersion {
		return nil, fmt.Errorf("%w: snapshot version %d is not %d", ErrDamaged, v, snapshotVersion)
	}
	s := &Settings{ID: string(r.bytes()), Name: string(r.bytes()), Currency: string(r.bytes())}
	p := &Product{settings: s}
	s.Price, s.LimitPerBuyer, s.HoldSeconds, s.StartsAt, s.EndsAt = r.int(), r.int(), r.int(), r.int(), r.int()
	p.run, p.begun = uint32(r.int()), uint64(r.int())
	p.stock, p.remaining, p.held, p.sold = r.int(), r.int(), r.int(), r.int()
	p.paused, p.opened, p.closed = r.uint() == 1, r.uint() == 1, r.uint() == 1
	for n := r.uint(); n > 0 && !r.bad; n-- {
		p.past = append(p.past, pastKeys{run: uint32(r.uint()), begun: r.uint(), until: r.int()})
	}
	if r.bad || len(r.rest) != 0 {
		return nil, fmt.Errorf("%w: the head of a snapshot of %q is cut short", ErrDamaged, s.ID)
	}
	return p, nil
}

// ReadSnapshot makes a product of the chunks that WriteSnapshot wrote. Next
// returns them in order, then nil.
func ReadSnapshot(next func() ([]byte, error)) (*Product, error) {
	chunk, err := next()
	if err != nil {
		return nil, err
	}
	p, err := readHead(chunk)
	if err != nil {
		return nil, err
	}
	keys, decided := &p.keys, &p.bought
	for {
		chunk, err := next()
		if err != nil {
			return nil, err
		}
		if chunk == nil {
			return p, p.checkSnapshot()
		}
		if len(chunk) == 0 {
			return nil, fmt.Errorf("%w: an empty chunk in the snapshot of %q", ErrDamaged, p.settings.ID)
		}
		r := &chunkReader{rest: chunk[1:]}
		switch chunk[0] {
		case chunkBuyers:
			for len(r.rest) > 0 {
				name := r.name()
				p.buyers.insert(nameHash(name), name)
				p.units.push(int32(r.int()))
			}
		case chunkStatus:
			for _, s := range r.rest {
				p.status.push(Status(s))
			}
		case chunkHolds:
			for len(r.rest) > 0 {
				deadline := r.int()
				p.holds.heap.push(hold{deadline: deadline, journaled: deadline, number: uint32(r.uint()), buyer: uint32(r.uint()) - 1, quantity: int32(r.uint())})
			}
		case chunkPast:
			if i := r.uint(); i < uint64(len(p.past)) {
				keys, decided = &p.past[i].keys, &p.past[i].bought
			} else {
				r.bad = true
			}
		case chunkKeys:
			for len(r.rest) > 0 {
				name := r.name()
				keys.insert(nameHash(name), name)
				decided.push(bought{number: uint32(r.uint()), quantity: int32(r.uint())})
			}
		default:
			r.bad = true
		}
		if r.bad {
			return nil, fmt.Errorf("%w: a chunk of kind %d in the snapshot of %q", ErrDamaged, chunk[0], p.settings.ID)
		}
	}
}

// checkSnapshot recounts what the parts of the snapshot say about each other.
func (p *Product) checkSnapshot() error {
	var held int64
	for _, h := range p.holds.heap {
		if int(h.number) >= p.status.len() || h.buyer != noName && int(h.buyer) >= p.buyers.len() {
			return fmt.Errorf("%w: the snapshot of %q holds an order it does not know", ErrDamaged, p.settings.ID)
		}
		held += int64(h.quantity)
	}
	if held != p.held || p.stock != p.remaining+p.held+p.sold || p.remaining < 0 || p.sold < 0 {
		return fmt.Errorf("%w: the snapshot of %q has stock %d, remaining %d, held %d (counted %d), sold %d",
			ErrDamaged, p.settings.ID, p.stock, p.remaining, p.held, held, p.sold)
	}
	return nil
}

// firstChunk reads only the head and lets the rest be.
func firstChunk(next func() ([]byte, error)) (*Product, error) {
	chunk, err := next()
	if err != nil {
		return nil, err
	}
	if chunk == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return readHead(chunk)
}
