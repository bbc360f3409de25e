package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// healthCommand asks a node whether it may sell. A container image that holds
// nothing but the binary has nothing else to ask with.
type healthCommand struct {
	Addr string `group:"node" default:"127.0.0.1:3000" placeholder:"HOST:PORT" help:"The node's listen address. Default: 127.0.0.1:3000"`
}

func (c *healthCommand) run(ctx context.Context, m *Main) error {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		f := &faults{}
		f.add("addr", c.Addr, "must be HOST:PORT, as in 127.0.0.1:3000")
		return f
	}
	// The address to listen on everywhere is no address to call.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Fprintf(m.Stdout, "%s\n", body)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return nil
}
