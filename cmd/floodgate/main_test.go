package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// binary is the real program, built once for the tests that kill it.
var binary string

func TestMain(m *testing.M) {
	if dir := os.Getenv(panicEnv); dir != "" { // this process is a test's, and ends here
		fmt.Fprintln(os.Stderr, panicInAShard(dir))
		os.Exit(exitFine)
	}
	dir, err := os.MkdirTemp("", "floodgate-test-*")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "floodgate")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// output collects what a program writes, and tells when a node is ready.
type output struct {
	mu    sync.Mutex
	all   bytes.Buffer
	line  []byte
	ready chan string // gets the address, once
}

func newOutput() *output { return &output{ready: make(chan string, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(p)
	o.line = append(o.line, p...)
	for {
		i := bytes.IndexByte(o.line, '\n')
		if i < 0 {
			return len(p), nil
		}
		var event struct{ Message, Addr string }
		if json.Unmarshal(o.line[:i], &event) == nil && event.Message == "ready" {
			o.ready <- event.Addr
		}
		o.line = o.line[i+1:]
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// program is the program running in this process.
type program struct {
	t              *testing.T
	stdout, stderr *output
	url            string
	stop           context.CancelFunc
	code           chan int
}

// environ makes the environment of a program from NAME=value.
func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// run runs the program to its end.
func run(t *testing.T, getenv func(string) string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	out, err := newOutput(), newOutput()
	m := Main{Args: args, Getenv: getenv, Stdout: out, Stderr: err}
	code = m.Run(t.Context())
	return code, out.String(), err.String()
}

// serve starts a node in this process and returns once it is ready. The test's
// end stops it.
func serve(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	return serveOn(t, nil, dir, args...)
}

// serveOn is serve on another file system.
func serveOn(t *testing.T, fs vfs.FS, dir string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{t: t, stdout: newOutput(), stderr: newOutput(), stop: cancel, code: make(chan int, 1)}
	m := Main{
		Args:   append([]string{"serve", "--addr=127.0.0.1:0", "--data-dir=" + dir}, args...),
		Getenv: environ(), Stdout: p.stdout, Stderr: p.stderr, FS: fs,
	}
	go func() { p.code <- m.Run(ctx) }()
	select {
	case addr := <-p.stderr.ready:
		p.url = "http://" + addr
	case code := <-p.code:
		t.Fatalf("the node did not start, exit code %d:\n%s", code, p.stderr)
	}
	t.Cleanup(func() {
		if p.stop != nil {
			p.drain(exitFine)
		}
	})
	return p
}

// drain stops the node as SIGTERM does, and holds its exit code.
func (p *program) drain(want int) {
	p.t.Helper()
	p.stop()
	p.stop = nil
	if code := <-p.code; code != want {
		p.t.Errorf("exit code %d, want %d:\n%s", code, want, p.stderr)
	}
}

// answer is an HTTP answer that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// client keeps no connection from one node to the next one on the same port.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Second}}

// request asks; an error means that no answer came. Headers are NAME: value.
func request(ctx context.Context, method, url, body string, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(all)}, err
}

// ask is request where an answer must come, with the given status.
func (p *program) ask(want int, method, path, body string, headers ...string) answer {
	p.t.Helper()
	a, err := request(p.t.Context(), method, p.url+path, body, headers...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != want {
		p.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, want, a.body)
	}
	return a
}

// patience is how long a test waits for what must happen. No test takes it.
const patience = 30 * time.Second

// until asks again and again until it holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick, end := time.NewTicker(2*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// line is one connection of a client, and nothing behind it that would ask twice.
type line struct {
	net.Conn
	reader *bufio.Reader
}

// dial opens so many connections to a node. The test's end closes them.
func dial(t *testing.T, url string, connections int) []*line {
	t.Helper()
	lines := make([]*line, connections)
	for i := range lines {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		lines[i] = &line{c, bufio.NewReaderSize(c, 1024)}
	}
	return lines
}

func (l *line) send(method, path, body string, headers ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: floodgate\r\n", method, path)
	for _, h := range headers {
		fmt.Fprintf(&b, "%s\r\n", h)
	}
	if body != "" {
		b.WriteString("Content-Type: application/json\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	_, err := io.WriteString(l, b.String())
	return err
}

func (l *line) read() (answer, error) {
	response, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(all)}, err
}

func (l *line) ask(method, path, body string, headers ...string) (answer, error) {
	if err := l.send(method, path, body, headers...); err != nil {
		return answer{}, err
	}
	return l.read()
}

// is reports whether the answer is this problem, as complete as a client needs it.
func (a answer) is(status int, problem string) bool {
	return a.status == status && strings.Contains(a.body, `"urn:floodgate:problem:`+problem+`"`) &&
		(status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "")
}

func decode[T any](t testing.TB, body string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

type orderJSON struct {
	ID, Product, Buyer, Status, Currency string
	Quantity                             int64
	PriceMinor                           int64  `json:"price_minor"`
	AcceptedAt                           string `json:"accepted_at"`
	ExpiresAt                            string `json:"expires_at"`
	Settled                              bool
}

type productJSON struct {
	ID, State                    string
	Stock, Remaining, Held, Sold int64
	Run                          int
}
