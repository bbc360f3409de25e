package ingest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// connection is one client's socket, as the door hands it to fasthttp. It makes
// an idle client cheap and a busy one no dearer:
//
//   - fasthttp with ReduceMemoryUsage gives all buffers back between requests
//     and waits by reading one byte, which costs a system call more per request.
//     Here that read waits without a buffer, and once there is something it
//     takes all there is into a pooled chunk; what fasthttp reads next comes
//     from the chunk.
//   - fasthttp reads the clock three times and moves three deadlines per request.
//     Here a request that comes in one piece costs one reading of the clock, and
//     a deadline is armed only where the armed one is later than the wanted one
//     or more than the slack before it. So a client is cut off in time or a
//     little early, never late.
//   - It can owe an answer: see owing.go.
//
// Until it is hijacked one goroutine uses it; fasthttp says that it is by
// clearing all deadlines at once, and from then on every call goes straight to
// the socket.
type connection struct {
	net.Conn
	raw  syscall.RawConn // nil where the socket has no descriptor to wait on
	fill func(fd uintptr) bool
	door *door

	chunk      *chunk // read ahead; nil while there is nothing
	start, end int
	err        error // of the fill

	line   bool        // the present request's first line ended in what was read
	linger atomic.Bool // the client may still be sending: let it read our last answer
	direct atomic.Bool // handed over

	idle      bool      // nothing of the next request was read
	idleSince time.Time // the connection's beginning, or the last write
	requestBy time.Time // the present request must be read by then; zero: not set yet

	armedRead, armedWrite time.Time

	owing

	begun  atomic.Bool // the first byte of the first request came
	closed atomic.Bool
}

// chunk is what is read ahead in one system call. Most requests fit.
type chunk [2048]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

const (
	deadlineSlack = time.Second
	lingerFor     = 500 * time.Millisecond
	lingerBytes   = 1 << 20
)

func newConnection(c net.Conn, d *door) *connection {
	conn := &connection{Conn: c, door: d, idle: true, idleSince: time.Now()}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil && canFill {
			conn.raw = raw
			conn.fill = conn.fillChunk
		}
	}
	return conn
}

// Read returns what was read ahead; else it reads from the socket.
func (c *connection) Read(p []byte) (int, error) {
	if c.chunk != nil {
		n := copy(p, c.chunk[c.start:c.end])
		c.start += n
		if c.start == c.end {
			chunks.Put(c.chunk)
			c.chunk = nil
		}
		return n, nil
	}
	if c.direct.Load() {
		return c.Conn.Read(p)
	}
	// One byte is what fasthttp asks for to wait for a request.
	if !c.idle || len(p) != 1 {
		return c.readOn(p)
	}
	limit := c.door.idleTimeout
	if !c.begun.Load() {
		limit = c.door.readTimeout
	}
	if err := c.armRead(c.idleSince.Add(limit)); err != nil {
		return 0, err
	}
	c.line = false
	if c.raw == nil {
		n, err := c.Conn.Read(p)
		c.begin()
		return n, err
	}
	if err := c.raw.Read(c.fill); err != nil {
		return 0, err
	}
	if c.chunk == nil {
		if c.err == nil {
			return 0, io.EOF
		}
		return 0, c.err
	}
	c.begin()
	c.line = hasLine(c.chunk[:c.end])
	p[0] = c.chunk[0]
	if c.start = 1; c.end == 1 {
		chunks.Put(c.chunk)
		c.chunk = nil
	}
	return 1, nil
}

// begin notes that the first byte of a request came.
func (c *connection) begin() {
	c.idle = false
	if !c.begun.Load() {
		c.begun.Store(true)
	}
}

// readOn reads more of a request that did not come in one piece. All of it must
// be there a read timeout after its beginning, which was just now where this is
// the first time that more is wanted.
func (c *connection) readOn(p []byte) (int, error) {
	if c.requestBy.IsZero() {
		c.requestBy = time.Now().Add(c.door.readTimeout)
	}
	if err := c.armRead(c.requestBy); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.line = c.line || hasLine(p[:n])
	return n, err
}

// fillChunk reads all there is, or reports false to wait for more. While it
// waits it holds no chunk.
func (c *connection) fillChunk(fd uintptr) bool {
	chunk := chunks.Get().(*chunk)
	n, err := readDescriptor(fd, chunk[:])
	if n > 0 {
		c.chunk, c.start, c.end = chunk, 0, n
		return true
	}
	chunks.Put(chunk)
	if errors.Is(err, syscall.EAGAIN) {
		return false
	}
	c.err = nil
	if err != nil {
		c.err = os.NewSyscallError("read", err)
	}
	return true
}

func hasLine(b []byte) bool {
	for _, c := range b {
		if c == '\n' {
			return true
		}
	}
	return false
}

func (c *connection) armRead(want time.Time) error {
	if !c.door.lapsed(c.armedRead, want) {
		return nil
	}
	c.armedRead = want
	return c.Conn.SetReadDeadline(want)
}

// lapsed reports whether the armed deadline may not stand for the wanted one.
func (d *door) lapsed(armed, want time.Time) bool {
	early := want.Sub(armed)
	return armed.IsZero() || early < 0 || early > d.slack
}

// Write gives the client the write timeout for each write, not for a whole
// answer, so that a stream of events may last as long as its reader keeps up.
// With ReduceMemoryUsage every answer is written out, so the next read that
// waits is for another request. An answer that is owed goes out first.
func (c *connection) Write(p []byte) (int, error) {
	if c.direct.Load() {
		return c.Conn.Write(p)
	}
	if c.swallow {
		c.swallow = false
		c.idle, c.idleSince, c.requestBy = true, c.swallowed, time.Time{}
		return len(p), nil
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	now := c.door.now()
	c.idle, c.idleSince, c.requestBy = true, now, time.Time{}
	return c.write(p, now)
}

// write is for who has the turn.
func (c *connection) write(p []byte, now time.Time) (int, error) {
	want := now.Add(c.door.writeTimeout)
	if c.door.lapsed(c.armedWrite, want) {
		c.armedWrite = want
		if err := c.Conn.SetWriteDeadline(want); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// SetReadDeadline is the socket's own once the connection is hijacked. Before
// that the timeouts above hold, and nobody else sets any.
func (c *connection) SetReadDeadline(t time.Time) error {
	if c.direct.Load() {
		return c.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline is the same for writing.
func (c *connection) SetWriteDeadline(t time.Time) error {
	if c.direct.Load() {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// SetDeadline is what fasthttp calls when it hands a connection over.
func (c *connection) SetDeadline(t time.Time) error {
	c.direct.Store(true)
	return c.Conn.SetDeadline(t)
}

// Close closes the socket, once. A client that may still be sending is first
// told that we are done and given a moment to stop: closing at once would reset
// the connection, and the client would lose the answer that says what was wrong.
// An answer that is owed goes out first.
func (c *connection) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.Load() && half.CloseWrite() == nil {
		drain(c.Conn)
	}
	err := c.Conn.Close()
	c.door.left(c)
	return err
}

// drain reads and forgets what the client still sends, within bounds.
func drain(c net.Conn) {
	if c.SetReadDeadline(time.Now().Add(lingerFor)) != nil {
		return
	}
	chunk := chunks.Get().(*chunk)
	defer chunks.Put(chunk)
	for total := 0; total < lingerBytes; {
		n, err := c.Read(chunk[:])
		if err != nil {
			return
		}
		total += n
	}
}
