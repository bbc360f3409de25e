package wal

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

// Options of a journal. The zero value of a field is its default, except Dir.
type Options struct {
	// Dir is the data directory. It is made if it is not there.
	Dir string
	// FS holds the directory; nil is the disk.
	FS vfs.FS
	// NoSync acknowledges an append when Pebble has it in memory, before it is
	// written: kill -9 loses what was appended since the last mark.
	NoSync bool
	// AcceptDataLoss opens a journal that ends before its mark.
	AcceptDataLoss bool
	// Logger tells what an operator should know.
	Logger zerolog.Logger
	// Fatal is called once, with the reason, when the disk refused a write and
	// memory may be ahead of it. It should end the process, and does by
	// default. Where it returns, the journal accepts nothing more.
	Fatal func(error)
	// CacheBytes is the memory for blocks read. Default 64 MiB.
	CacheBytes int64
	// MemTableBytes is written to the log before a table is made of it. It
	// bounds what Open reads back. Default 64 MiB.
	MemTableBytes uint64
	// MarkInterval is the least time between two writes of the mark. Default
	// 100 ms.
	MarkInterval time.Duration
	// IndexInterval is how often the indexer looks whether the moment is quiet
	// enough to go on. Default 250 ms.
	IndexInterval time.Duration
	// ReadTimeout bounds how long a read waits for the index or for an event
	// in flight to become durable. Default 2 s.
	ReadTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 64 << 20
	}
	if o.MarkInterval == 0 {
		o.MarkInterval = 100 * time.Millisecond
	}
	if o.IndexInterval == 0 {
		o.IndexInterval = 250 * time.Millisecond
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 2 * time.Second
	}
	if o.Fatal == nil {
		logger := o.Logger
		o.Fatal = func(err error) {
			logger.Fatal().Err(err).Msg("The journal failed; a restart finds out what was stored.")
		}
	}
	return o
}

// Validate names all that is wrong with the options.
func (o Options) Validate() error {
	var faults []error
	fault := func(field string, value any, want string) {
		faults = append(faults, fmt.Errorf("wal: option %s is %v, %s", field, value, want))
	}
	o = o.withDefaults()
	if o.Dir == "" {
		fault("Dir", `""`, "want a directory")
	}
	if o.CacheBytes < 1<<20 {
		fault("CacheBytes", o.CacheBytes, "want at least 1 MiB")
	}
	if o.MemTableBytes < 1<<20 || o.MemTableBytes > 1<<30 {
		fault("MemTableBytes", o.MemTableBytes, "want 1 MiB to 1 GiB")
	}
	if o.MarkInterval < time.Millisecond || o.MarkInterval > 10*time.Second {
		fault("MarkInterval", o.MarkInterval, "want 1 ms to 10 s")
	}
	if o.IndexInterval < time.Millisecond || o.IndexInterval > time.Minute {
		fault("IndexInterval", o.IndexInterval, "want 1 ms to 1 m")
	}
	if o.ReadTimeout < time.Millisecond || o.ReadTimeout > time.Minute {
		fault("ReadTimeout", o.ReadTimeout, "want 1 ms to 1 m")
	}
	return errors.Join(faults...)
}
