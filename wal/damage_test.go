package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/wal"
)

// site is a data directory on the real disk that was in use when it was copied,
// as kill -9 leaves it, with the mark up to date.
type site struct {
	dir    string
	events []engine.Event
}

// newSite appends n events in batches of 20. Tables says whether what came
// before the last tenth is in tables.
func newSite(t *testing.T, n int, tables bool) site {
	t.Helper()
	s := site{dir: t.TempDir()}
	live := filepath.Join(t.TempDir(), "live")
	j := open(t, wal.Options{Dir: live, Logger: zerolog.Nop(), MarkInterval: 1e6})
	for len(s.events) < n {
		batch := make([]engine.Event, 20)
		orders(batch, uint64(len(s.events))+1, true)
		if err := j.Append(batch); err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			s.events = append(s.events, enginetest.CloneEvent(&batch[i]))
		}
		if tables && len(s.events) == n*9/10 {
			if err := j.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.WriteMark(); err != nil {
		t.Fatal(err)
	}
	copyTree(t, live, s.dir)
	return s
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func (s site) copy(t *testing.T) site {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	copyTree(t, s.dir, to)
	return site{to, s.events}
}

// files returns the files of the database with the given suffix or prefix.
func (s site) files(t *testing.T, part string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(s.dir, "journal"), func(path string, d fs.DirEntry, err error) error {
		if info, e := d.Info(); err == nil && e == nil && strings.Contains(d.Name(), part) && info.Size() > 0 && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s in %s: %v", part, s.dir, err)
	}
	slices.Sort(found)
	return found
}

// outcome opens the directory and reads all of it. It returns ErrDamaged as an
// error, and fails the test where an event is missing or wrong without one.
func (s site) outcome(t *testing.T) error {
	t.Helper()
	j, err := wal.Open(wal.Options{Dir: s.dir, Logger: zerolog.Nop(), Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		return err
	}
	defer j.Close()
	var got []engine.Event
	err = j.Events(0, func(e *engine.Event) error {
		got = append(got, enginetest.CloneEvent(e))
		return nil
	})
	if err != nil {
		return err
	}
	if diff := enginetest.DiffEvents(s.events, got); diff != "" {
		t.Errorf("events were lost or changed without an error:\n%s", diff)
	}
	if _, err := j.Check(t.Context()); err != nil {
		return err
	}
	return nil
}

func wantDamaged(t *testing.T, err error) {
	t.Helper()
	var told *wal.Error
	if !errors.Is(err, wal.ErrDamaged) || !errors.Is(err, engine.ErrDamaged) || !errors.As(err, &told) {
		t.Errorf("got %v, want ErrDamaged", err)
		return
	}
	if told.Path == "" || told.Hint == "" {
		t.Errorf("the error names no file or no way out: %v", err)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// used returns the length of the file without the zeros at its end.
func used(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(bytes.TrimRight(b, "\x00")))
}

// F25: a flipped bit in the log is told, or loses nothing.
func TestFlippedBitInTheLog(t *testing.T) {
	s := newSite(t, 500, false)
	logs := s.files(t, ".log")
	log := logs[len(logs)-1]
	length, told := used(t, log), 0
	rng := rand.New(rand.NewPCG(1, 2))
	for n := int64(0); n < 60; n += min(slow, 4) {
		c := s.copy(t)
		at := n*length/60 + rng.Int64N(length/60)
		flip(t, filepath.Join(c.dir, "journal", filepath.Base(log)), at)
		if err := c.outcome(t); err != nil {
			wantDamaged(t, err)
			told++
		}
	}
	if told < 50/min(slow, 4) {
		t.Errorf("only %d of 60 flips were told", told)
	}
}

// F26: a log that was cut, or is gone, or an older copy of the database, is told
// by the mark.
func TestLogCutDeletedOrOlder(t *testing.T) {
	s := newSite(t, 500, false)
	logs := s.files(t, ".log")
	log := filepath.Base(logs[len(logs)-1])
	length := used(t, logs[len(logs)-1])
	for _, part := range []int64{0, 1, 10, 50, 90, 99} {
		t.Run(fmt.Sprintf("cut to %d percent", part), func(t *testing.T) {
			c := s.copy(t)
			if err := os.Truncate(filepath.Join(c.dir, "journal", log), length*part/100); err != nil {
				t.Fatal(err)
			}
			wantDamaged(t, c.outcome(t))
		})
	}
	t.Run("deleted", func(t *testing.T) {
		c := s.copy(t)
		if err := os.Remove(filepath.Join(c.dir, "journal", log)); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, c.outcome(t))
	})
	t.Run("older copy", func(t *testing.T) {
		older, c := newSite(t, 400, false), s.copy(t)
		copyTree(t, filepath.Join(older.dir, "journal"), filepath.Join(c.dir, "journal"))
		wantDamaged(t, c.outcome(t))
		// The operator may say that this is all there is.
		j, err := wal.Open(wal.Options{Dir: c.dir, Logger: zerolog.Nop(), AcceptDataLoss: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := j.DurableSeq(); got != 400 {
			t.Errorf("%d events are there, want 400", got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		c.events = c.events[:400]
		if err := c.outcome(t); err != nil {
			t.Error(err)
		}
	})
	t.Run("all gone", func(t *testing.T) {
		for _, name := range []string{"journal", "journal.mark", "node", "FORMAT"} {
			c := s.copy(t)
			if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
				t.Fatal(err)
			}
			wantDamaged(t, c.outcome(t))
		}
	})
}

// F27: damage in a table or a manifest is told, never served around, and never
// a panic.
func TestFlippedBitInTablesAndManifest(t *testing.T) {
	s := newSite(t, 2000, true)
	for _, kind := range []string{".sst", "MANIFEST"} {
		t.Run(kind, func(t *testing.T) {
			files := s.files(t, kind)
			told := 0
			rng := rand.New(rand.NewPCG(3, 4))
			for range 25 / min(slow, 5) {
				c := s.copy(t)
				file := filepath.Base(files[rng.IntN(len(files))])
				path := filepath.Join(c.dir, "journal", file)
				flip(t, path, rng.Int64N(max(1, used(t, path))))
				if err := c.outcome(t); err != nil {
					wantDamaged(t, err)
					told++
				}
			}
			if told == 0 {
				t.Error("nothing was told")
			}
		})
	}
	t.Run("deleted table", func(t *testing.T) {
		c := s.copy(t)
		if err := os.Remove(filepath.Join(c.dir, "journal", filepath.Base(s.files(t, ".sst")[0]))); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, c.outcome(t))
	})
	t.Run("deleted manifest", func(t *testing.T) {
		c := s.copy(t)
		files := s.files(t, "MANIFEST")
		if err := os.Remove(filepath.Join(c.dir, "journal", filepath.Base(files[len(files)-1]))); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, c.outcome(t))
	})
}

// Ensure that an index that is gone, damaged or ahead of the journal is made
// again from the journal.
func TestIndexIsMadeAgain(t *testing.T) {
	s := newSite(t, 2000, true)
	for _, kind := range []string{"", "MANIFEST", ".sst"} {
		c := s.copy(t)
		index := filepath.Join(c.dir, "index")
		if kind == "" {
			if err := os.RemoveAll(index); err != nil {
				t.Fatal(err)
			}
		}
		entries, _ := os.ReadDir(index)
		for _, e := range entries {
			if path := filepath.Join(index, e.Name()); strings.Contains(e.Name(), kind) && used(t, path) > 0 {
				flip(t, path, used(t, path)/2)
			}
		}
		err := c.outcome(t)
		if kind == ".sst" { // found when it is read; the operator removes it
			wantDamaged(t, err)
			if err := os.RemoveAll(index); err != nil {
				t.Fatal(err)
			}
			err = c.outcome(t)
		}
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	ahead, behind := newSite(t, 500, true), newSite(t, 100, true)
	copyTree(t, filepath.Join(ahead.dir, "index"), filepath.Join(behind.dir, "index"))
	if err := behind.outcome(t); err != nil {
		t.Error(err)
	}
}

// Ensure that a flipped bit in a slot of the mark leaves the other, and in both
// is told.
func TestFlippedBitInTheMark(t *testing.T) {
	s := newSite(t, 100, false)
	c := s.copy(t)
	path := filepath.Join(c.dir, "journal.mark")
	flip(t, path, 9)
	if err := c.outcome(t); err != nil {
		t.Error(err)
	}
	c = s.copy(t)
	path = filepath.Join(c.dir, "journal.mark")
	flip(t, path, 9)
	flip(t, path, 4096+9)
	wantDamaged(t, c.outcome(t))
}

func TestNewerFormatIsRefused(t *testing.T) {
	s := newSite(t, 20, false)
	if err := os.WriteFile(filepath.Join(s.dir, "FORMAT"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.outcome(t)
	if !errors.Is(err, wal.ErrFormatTooNew) || !strings.Contains(err.Error(), "format 7") || !strings.Contains(err.Error(), "up to 1") {
		t.Errorf("got %v, want ErrFormatTooNew with both versions", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "FORMAT"), []byte("seven\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantDamaged(t, s.outcome(t))
}

// F11: one directory, one journal, under whatever name.
func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	j := open(t, wal.Options{Dir: dir, Logger: zerolog.Nop()})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, dir + "/", filepath.Join(dir, "..", filepath.Base(dir)), link} {
		if _, err := wal.Open(wal.Options{Dir: name, Logger: zerolog.Nop()}); !errors.Is(err, wal.ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("second open as %s: %v, want ErrLocked that names the directory", name, err)
		}
	}
	batch := make([]engine.Event, 3)
	orders(batch, 1, false)
	if err := j.Append(batch); err != nil {
		t.Errorf("the first is disturbed: %v", err)
	}
}

func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	open(t, wal.Options{Dir: dir, Logger: zerolog.Nop()})
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "node"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode().Perm(), want, err)
		}
	}
}
