package engine

// Journal keeps events. It is the only thing the engine waits for.
type Journal interface {
	// Append stores the events, which carry consecutive sequences that follow
	// those of the call before. Nil means that all of them are on stable
	// storage. After an error the engine never calls again: whether the events
	// were stored is unknown. The events and their slices are the caller's
	// again when Append returns. It is called by one goroutine at a time.
	Append(events []Event) error
}

// History is a journal read from its beginning. A restart and a snapshot are
// made from it by the same code.
type History interface {
	// SnapshotSeq returns the sequence that the snapshots include, 0 where
	// there are none.
	SnapshotSeq() uint64

	// Snapshots calls load once for each product that has a snapshot. Next
	// returns the snapshot's chunks in the order they were written, then nil;
	// a chunk is valid until next is called again.
	Snapshots(load func(product string, next func() ([]byte, error)) error) error

	// Snapshot is the same for one product. It reports false where that
	// product has none.
	Snapshot(product string, load func(next func() ([]byte, error)) error) (bool, error)

	// Events calls apply for each event after the given sequence, in order, up
	// to the last one that is durable. The event is valid during the call.
	Events(after uint64, apply func(*Event) error) error
}

// SnapshotStore is a history that can be shortened.
type SnapshotStore interface {
	History

	// WriteSnapshots stores a snapshot, as of seq, of each product that write
	// is called for, and vouches for all other products' snapshots up to seq:
	// no event since has touched them. It calls write once for each product
	// in products, with a function that takes the next chunk (a MiB or so; the
	// slice is the caller's again on return). All of it takes effect at once
	// and durably, or nothing does.
	WriteSnapshots(seq uint64, products []string, write func(product string, chunk func([]byte) error) error) error
}
