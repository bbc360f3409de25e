// Package wal is the node's memory on disk: the journal of events, the ledger
// of orders that can be read from it, and the snapshots that bound a replay.
// All of it is one Pebble database with one owner.
//
// # What it promises
//
//   - Append returned nil: every event of it survives kill -9 and a power cut.
//   - Nothing is read, by anybody, that is not yet durable.
//   - Damage is told (ErrDamaged), never skipped, never served around.
//   - A torn tail that was never acknowledged is tolerated and logged.
//
// # What it does not promise
//
// With Options.NoSync a crash of the process or the machine loses what was
// appended since the last mark, at most MarkInterval or so. A disk that lies
// about its fsync, or a bit flipped in the last records, is noticed only as
// far back as the mark reaches.
//
// Read DESIGN.md for the reasons and the figures, record.go for the bytes.
package wal
