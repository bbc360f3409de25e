//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// crowd is the connection test: so many connections are open, all of them buy at
// the same moment, and all get an answer. There are half as many units.
type crowd struct {
	Connections int     `json:"connections"`
	Server      string  `json:"server"`
	Accepted    int     `json:"accepted"`
	Refused     int     `json:"refused"`
	AnsweredIn  float64 `json:"seconds_to_the_last_answer"`
	IdleBytes   int64   `json:"idle_bytes_per_connection"` // growth of the server's memory, all idle after one request each
}

const (
	dialsAtOnce  = 128 // the dialling is not what is tested; the kernel's backlog is finite
	crowdTimeout = 60 * time.Second
	idleFor      = 3 * time.Second
)

// connections tests the node, and the bare server for comparison.
func (b *bench) connections(ctx context.Context, n int) (results []crowd, err error) {
	bare, err := start(ctx, b.dir, "bare-crowd", b.bare.cmd.Path, bareReady, "-addr={addr}")
	if err != nil {
		return nil, err
	}
	c, err := storm(ctx, bare, n)
	if err = errors.Join(err, bare.stop()); err != nil {
		return nil, err
	}
	c.Server = "bare"
	results = append(results, c)

	node, err := b.startNode(ctx, "crowd", "always")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, node.stop(), os.RemoveAll(filepath.Join(b.dir, "crowd-data")))
	}()
	stock := int64(n / 2)
	if err := createProduct(ctx, node.addr, stock, 0); err != nil {
		return nil, err
	}
	if c, err = storm(ctx, node, n); err != nil {
		return nil, err
	}
	c.Server = "floodgate"
	p, err := settledProduct(ctx, node.addr)
	if err != nil {
		return nil, err
	}
	books := ledger{stock: stock, accepted: int64(c.Accepted)}
	if err := books.check(p); err != nil {
		return nil, err
	}
	if int64(c.Accepted) != stock || c.Accepted+c.Refused != n {
		return nil, fmt.Errorf("%d connections bought %d of %d units and %d were refused", n, c.Accepted, stock, c.Refused)
	}
	return append(results, c), nil
}

// storm opens the connections, lets them all buy once at the same moment, and
// measures the server's memory while they are idle.
func storm(ctx context.Context, s *server, n int) (c crowd, err error) {
	c.Connections = n
	before, err := s.rss()
	if err != nil {
		return c, err
	}
	conns, err := dialAll(ctx, s.addr, n)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	if err != nil {
		return c, err
	}
	statuses, errs := make([]int, n), make([]error, n)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i, conn := range conns {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			statuses[i], errs[i] = buyOne(conn, s.addr, i)
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	c.AnsweredIn = time.Since(began).Seconds()
	failed := 0
	var first error
	for i := range statuses {
		switch {
		case errs[i] != nil:
			if failed++; first == nil {
				first = errs[i]
			}
		case statuses[i] == http.StatusCreated:
			c.Accepted++
		case statuses[i] == http.StatusConflict:
			c.Refused++
		default:
			if failed++; first == nil {
				first = fmt.Errorf("status %d", statuses[i])
			}
		}
	}
	if failed > 0 {
		return c, fmt.Errorf("%d of %d connections to %s got no proper answer; the first: %w", failed, n, s.name, first)
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return c, ctx.Err()
	}
	after, err := s.rss()
	c.IdleBytes = (after - before) / int64(n)
	return c, err
}

func dialAll(ctx context.Context, addr string, n int) ([]net.Conn, error) {
	conns, errs := make([]net.Conn, n), make([]error, n)
	var dialers sync.WaitGroup
	next := make(chan int)
	for range dialsAtOnce {
		dialers.Go(func() {
			d := net.Dialer{Timeout: crowdTimeout}
			for i := range next {
				conns[i], errs[i] = d.DialContext(ctx, "tcp", addr)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	dialers.Wait()
	for i, err := range errs {
		if err != nil {
			return conns, fmt.Errorf("connection %d of %d (the limit of open files may be too low): %w", i+1, n, err)
		}
	}
	return conns, nil
}

// buyOne buys a unit on the connection and leaves it open.
func buyOne(conn net.Conn, addr string, i int) (status int, err error) {
	if err := conn.SetDeadline(time.Now().Add(crowdTimeout)); err != nil {
		return 0, err
	}
	body := fmt.Sprintf(`{"buyer":"u-%d","quantity":1}`, i)
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		placePath, addr, len(body), body); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}
