package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// layout is a data directory:
//
//	LOCK          held while the journal is open
//	FORMAT        the format's version; written last, so it vouches for the rest
//	node          who the node is and the secret of its order ids
//	journal/      the database of everything but the index
//	index/        the database of the index; made again where it is missing
//	journal.new/  a database being made; worthless after a crash
//	journal.mark  see mark.go
type layout struct {
	fs   vfs.FS
	disk bool // the operating system's file system
	dir  string
}

const formatVersion = 1

func (l layout) path(name string) string { return l.fs.PathJoin(l.dir, name) }
func (l layout) journal() string         { return l.path("journal") }
func (l layout) index() string           { return l.path("index") }
func (l layout) mark() string            { return l.path("journal.mark") }
func (l layout) format() string          { return l.path("FORMAT") }
func (l layout) node() string            { return l.path("node") }

// identity is what the node file holds.
type identity struct {
	id     [16]byte // a random UUID
	secret [16]byte
}

// openLayout makes and locks the directory. The lock must be closed.
func openLayout(o *Options) (layout, io.Closer, error) {
	l := layout{fs: o.FS, dir: o.Dir}
	if l.fs == nil {
		l.fs, l.disk = vfs.Default, true
	}
	if _, err := l.fs.Stat(l.dir); isMissing(err) {
		if err := l.makeDir(); err != nil {
			return l, nil, &Error{Op: "create", Path: l.dir, Err: err}
		}
	}
	if l.disk {
		// One directory must have one name, or a process could lock it twice.
		dir, err := filepath.Abs(l.dir)
		if err == nil {
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err != nil {
			return l, nil, &Error{Op: "open", Path: l.dir, Err: err}
		}
		l.dir = dir
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 != 0 {
			o.Logger.Warn().Str("dir", dir).Stringer("mode", info.Mode().Perm()).
				Msg("The data directory is open to other users; it holds buyers' names and the secret of the order ids.")
		}
	}
	lock, err := l.fs.Lock(l.path("LOCK"))
	if err != nil {
		// A lock that somebody holds is a bare error; a file that cannot be
		// opened is an error with a path.
		if path := (*os.PathError)(nil); errors.As(err, &path) {
			return l, nil, &Error{Op: "lock", Path: l.dir, Err: err}
		}
		return l, nil, &Error{Op: "lock", Path: l.dir, Hint: hintLocked, Err: fmt.Errorf("%w: %w", ErrLocked, err)}
	}
	return l, lock, nil
}

func (l layout) makeDir() error { return l.fs.MkdirAll(l.dir, 0o700) }

// syncAbove makes the directory's own entry durable, and those of the
// directories above it, any of which may have been made just now or by an
// attempt that was cut off. Those that are not ours to open are older than we.
func (l layout) syncAbove() error {
	for dir := l.dir; ; {
		above := l.fs.PathDir(dir)
		if above == dir || dir == "." {
			return nil
		}
		if err := l.syncDir(above); err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		dir = above
	}
}

func (l layout) syncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := l.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l layout) exists(path string) (bool, error) {
	_, err := l.fs.Stat(path)
	if isMissing(err) {
		return false, nil
	}
	return err == nil, err
}

// readFormat returns the directory's format version, 0 where it has none.
func (l layout) readFormat() (int, error) {
	b, err := l.readFile(l.format())
	if isMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, openError("read", l.format(), err)
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || version < 1 {
		return 0, damaged("read", l.format(), "%q is no format version", b)
	}
	if version > formatVersion {
		return 0, &Error{Op: "open", Path: l.dir, Hint: hintNewer,
			Err: fmt.Errorf("%w: it has format %d, this Floodgate knows formats up to %d", ErrFormatTooNew, version, formatVersion)}
	}
	return version, nil
}

func (l layout) writeFormat() error {
	return l.writeFile(l.format(), []byte(strconv.Itoa(formatVersion)+"\n"))
}

// readNode returns the node's identity.
func (l layout) readNode() (identity, error) {
	var who identity
	b, err := l.readFile(l.node())
	if err != nil {
		return who, openError("read", l.node(), err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) == 4 && lines[2] == nodeChecksum(lines[0], lines[1]) {
		id, ok1 := strings.CutPrefix(lines[0], "id ")
		secret, ok2 := strings.CutPrefix(lines[1], "secret ")
		n, err1 := hex.Decode(who.id[:], []byte(strings.ReplaceAll(id, "-", "")))
		m, err2 := hex.Decode(who.secret[:], []byte(secret))
		if ok1 && ok2 && n == 16 && m == 16 && err1 == nil && err2 == nil {
			return who, nil
		}
	}
	return identity{}, damaged("read", l.node(), "the node's identity is not readable")
}

// writeNode makes the node's identity.
func (l layout) writeNode() error {
	var who identity
	rand.Read(who.id[:])
	rand.Read(who.secret[:])
	who.id[6] = who.id[6]&0x0f | 0x40
	who.id[8] = who.id[8]&0x3f | 0x80
	h := hex.EncodeToString(who.id[:])
	id := "id " + h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	secret := "secret " + hex.EncodeToString(who.secret[:])
	return l.writeFile(l.node(), []byte(id+"\n"+secret+"\n"+nodeChecksum(id, secret)+"\n"))
}

func nodeChecksum(id, secret string) string {
	return fmt.Sprintf("check %016x", xxhash.Sum64String(id+"\n"+secret))
}

func (l layout) readFile(path string) ([]byte, error) {
	f, err := l.fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return b, errors.Join(err, f.Close())
}

// writeFile stores the file as a whole or not at all, for its owner's eyes.
func (l layout) writeFile(path string, content []byte) error {
	temporary := path + ".new"
	f, err := l.fs.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if l.disk {
		err = os.Chmod(temporary, 0o600)
	}
	if err == nil {
		_, err = io.Copy(f, bytes.NewReader(content))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := l.fs.Rename(temporary, path); err != nil {
		return err
	}
	return l.syncDir(l.dir)
}

// FreeBytes returns the bytes that the file system of dir has left for us, and
// all it has.
func FreeBytes(dir string) (free, total uint64, err error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		return 0, 0, &Error{Op: "measure the free space of", Path: dir, Err: err}
	}
	return usage.AvailBytes, usage.TotalBytes, nil
}
