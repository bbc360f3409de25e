package ingest

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// door is a listener that bounds how many clients are inside. One too many is
// told so by a problem and turned away without costing a worker. Running out of
// descriptors or buffers does not close the door: those inside will leave.
type door struct {
	net.Listener
	limit int64
	log   zerolog.Logger

	readTimeout, writeTimeout, idleTimeout time.Duration
	slack                                  time.Duration // how early a deadline may be

	opened time.Time
	passed atomic.Int64 // since then, as the clock last saw it

	inside   atomic.Int64
	turned   atomic.Uint64
	turning  chan struct{} // bounds how many are being turned away at once
	turnings sync.WaitGroup

	mu     sync.Mutex
	all    map[*connection]struct{} // that are inside
	shut   bool
	closed chan struct{}
	over   chan struct{} // nobody is inside any more
	ended  sync.Once
}

// turningAtOnce bounds the goroutines that tell clients there is no room.
const turningAtOnce = 256

func newDoor(l net.Listener, o *Options) *door {
	return &door{
		Listener: l, limit: int64(o.MaxConnections), log: o.Logger,
		readTimeout: o.ReadTimeout, writeTimeout: o.WriteTimeout, idleTimeout: o.IdleTimeout,
		turning: make(chan struct{}, turningAtOnce),
		slack:   min(deadlineSlack, o.ReadTimeout/10, o.WriteTimeout/10, o.IdleTimeout/10),
		all:     make(map[*connection]struct{}),
		closed:  make(chan struct{}),
		over:    make(chan struct{}),
		opened:  time.Now(),
	}
}

// now returns the time, or a little before it: at most half the slack. Each
// answer asks, and the system's clock would cost more than the deadline is worth.
func (d *door) now() time.Time { return d.opened.Add(time.Duration(d.passed.Load())) }

// runClock moves now on until end.
func (d *door) runClock() {
	ticker := time.NewTicker(max(d.slack/2, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-d.over:
			return
		case now := <-ticker.C:
			d.passed.Store(int64(now.Sub(d.opened)))
		}
	}
}

// Accept returns the next client there is room for.
func (d *door) Accept() (net.Conn, error) {
	wait := time.Duration(0)
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			if !passing(err) {
				return nil, err
			}
			if wait == 0 {
				d.log.Warn().Err(err).Msg("cannot accept connections for the moment")
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
				continue
			case <-d.closed:
				return nil, net.ErrClosed
			}
		}
		wait = 0
		if d.inside.Add(1) > d.limit {
			d.inside.Add(-1)
			d.turnAway(c)
			continue
		}
		conn := newConnection(c, d)
		d.mu.Lock()
		shut := d.shut
		if !shut {
			d.all[conn] = struct{}{}
		}
		d.mu.Unlock()
		if shut {
			conn.Close()
			return nil, net.ErrClosed
		}
		return conn, nil
	}
}

// passing reports whether accepting may work again in a moment.
func passing(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// turnAway tells a client that there is no room. What it is told fits into a
// fresh socket's buffer, so telling does not wait; a client that is sending then
// gets a moment to read it before the socket closes, where few enough do.
func (d *door) turnAway(c net.Conn) {
	d.turned.Add(1)
	body := appendProblem(nil, tooManyConnections, "The node holds as many connections as it may. Nothing was decided; try again.")
	answer := "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/problem+json\r\n" +
		"Cache-Control: no-store\r\nRetry-After: " + strconv.FormatInt(retrySoon(), 10) +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body)
	half, ok := c.(interface{ CloseWrite() error })
	if c.SetWriteDeadline(time.Now().Add(lingerFor)) != nil {
		ok = false
	} else if _, err := c.Write([]byte(answer)); err != nil {
		ok = false
	}
	if ok {
		select {
		case d.turning <- struct{}{}:
		default:
			ok = false
		}
	}
	if !ok || half.CloseWrite() != nil {
		c.Close()
		if ok {
			<-d.turning
		}
		return
	}
	d.turnings.Add(1)
	go func() {
		defer d.turnings.Done()
		defer func() { <-d.turning }()
		defer c.Close()
		drain(c)
	}()
}

// end waits for what the door still does, once nobody is inside.
func (d *door) end() {
	d.ended.Do(func() { close(d.over) })
	d.turnings.Wait()
}

// left is called once by each connection that closes.
func (d *door) left(c *connection) {
	d.inside.Add(-1)
	d.mu.Lock()
	delete(d.all, c)
	d.mu.Unlock()
}

// Close stops accepting, once, and closes the clients that have not said
// anything yet: fasthttp would wait five seconds for each of them.
func (d *door) Close() error {
	d.mu.Lock()
	if d.shut {
		d.mu.Unlock()
		return nil
	}
	d.shut = true
	close(d.closed)
	var silent []*connection
	for c := range d.all {
		if !c.begun.Load() {
			silent = append(silent, c)
		}
	}
	d.mu.Unlock()
	err := d.Listener.Close()
	for _, c := range silent {
		c.Close()
	}
	return err
}

// abandon ends the connections that nobody took over, whatever they still owe.
func (d *door) abandon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.all {
		if !c.direct.Load() {
			c.Conn.Close() // not c's own, which lets what is owed go out first
		}
	}
}
