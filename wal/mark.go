package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// mark is the journal's high-water mark, in a file beside the database. A
// database whose log was cut, or damaged in its last block, opens as if nothing
// were missing; the mark knows better.
//
// The file has two slots that are written in turn, so a torn write spoils the
// newer and leaves the older. A slot:
//
//	magic 4 bytes, generation 8, sequence 8, xxhash64 of those 8
//
// The valid slot with the greater generation holds. Invariant: the sequence
// was durable in the database before the slot was written.
type mark struct {
	file       vfs.File
	generation uint64
	seq        uint64
	room       [slotLen]byte
}

const (
	markMagic = "FGM1"
	slotLen   = 4 + 8 + 8 + 8
	slotStep  = 4096 // no sector holds both
)

var errNoMark = errors.New("no slot of the mark is valid")

// createMark makes the file with the given sequence.
func createMark(fs vfs.FS, path string, seq uint64) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	m := &mark{file: f, seq: seq}
	for range 2 {
		if err = m.write(seq); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// openMark reads the file. Torn says that one slot was not valid.
func openMark(fs vfs.FS, path string) (m *mark, torn bool, err error) {
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, false, err
	}
	m = &mark{file: f}
	valid := 0
	for slot := range int64(2) {
		room := make([]byte, slotLen)
		if _, err := f.ReadAt(room, slot*slotStep); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, errors.Join(err, f.Close())
		}
		if string(room[:4]) != markMagic || binary.BigEndian.Uint64(room[20:]) != xxhash.Sum64(room[:20]) {
			continue
		}
		valid++
		if generation := binary.BigEndian.Uint64(room[4:]); generation > m.generation {
			m.generation, m.seq = generation, binary.BigEndian.Uint64(room[12:])
		}
	}
	if valid == 0 {
		return nil, false, errors.Join(errNoMark, f.Close())
	}
	return m, valid == 1, nil
}

// write stores the sequence durably.
func (m *mark) write(seq uint64) error {
	generation := m.generation + 1
	room := append(m.room[:0], markMagic...)
	room = binary.BigEndian.AppendUint64(room, generation)
	room = binary.BigEndian.AppendUint64(room, seq)
	room = binary.BigEndian.AppendUint64(room, xxhash.Sum64(room))
	if _, err := m.file.WriteAt(room, int64(generation%2)*slotStep); err != nil {
		return fmt.Errorf("write mark %d: %w", seq, err)
	}
	// The file grows while its first two slots are written; then data is all
	// there is to sync.
	sync := m.file.SyncData
	if generation <= 2 {
		sync = m.file.Sync
	}
	if err := sync(); err != nil {
		return fmt.Errorf("sync mark %d: %w", seq, err)
	}
	m.generation, m.seq = generation, seq
	return nil
}

func (m *mark) close() error { return m.file.Close() }
