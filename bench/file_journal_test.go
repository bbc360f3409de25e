package bench_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"floodgate/engine"
)

// fileJournal appends length-prefixed records to a plain file: what a journal
// costs that cannot be searched, shortened or checked.
type fileJournal struct {
	f    *os.File
	path string
	room []byte
}

func openFileJournal(dir string) (*fileJournal, error) {
	path := filepath.Join(dir, "journal")
	f, err := os.Create(path)
	return &fileJournal{f: f, path: path}, err
}

func (j *fileJournal) Append(events []engine.Event) error {
	b := j.room[:0]
	for i := range events {
		e := &events[i]
		start := len(b)
		b = append(b, 0, 0, byte(e.Kind))
		b = binary.AppendUvarint(b, e.Seq)
		b = binary.AppendUvarint(b, uint64(e.At))
		b = binary.AppendUvarint(b, uint64(e.Number))
		b = binary.AppendVarint(b, e.Quantity)
		b = binary.AppendVarint(b, e.Price)
		b = append(b, byte(len(e.Product)), byte(len(e.Buyer)), byte(len(e.Key)))
		b = append(append(append(b, e.Product...), e.Buyer...), e.Key...)
		binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	}
	j.room = b
	if _, err := j.f.Write(b); err != nil {
		return err
	}
	return syncData(j.f)
}

// Close counts the orders that are in the file.
func (j *fileJournal) Close() (orders int64, err error) {
	if err := j.f.Close(); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(j.path)
	if err != nil {
		return 0, err
	}
	for len(b) > 0 {
		if len(b) < 3 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return orders, fmt.Errorf("the file ends in the middle of a record, after %d orders", orders)
		}
		if engine.Kind(b[2]) == engine.OrderAccepted {
			orders++
		}
		b = b[2+int(binary.BigEndian.Uint16(b)):]
	}
	return orders, nil
}
