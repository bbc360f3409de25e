package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/ingest"
)

const (
	adminToken = "admin-token-of-the-tests-0123456789"
	// patience bounds how long a test waits for what must happen. It is no
	// assertion about speed.
	patience = 20 * time.Second
)

// node is a server on a real listener, over the real engine and a journal in
// memory.
type node struct {
	t       *testing.T
	server  *ingest.Server
	engine  *engine.Engine
	journal *enginetest.MemoryJournal
	addr    string
	now     *atomic.Int64 // Unix milliseconds, for engine and server alike
	client  *http.Client
}

// brokenEngine is the real engine but for what a test replaces.
type brokenEngine struct {
	*engine.Engine
	do     func(*engine.Listing, *engine.Command) error
	failed chan struct{}
}

func (b *brokenEngine) Do(l *engine.Listing, c *engine.Command) error {
	if b.do != nil {
		return b.do(l, c)
	}
	return b.Engine.Do(l, c)
}

// Send tells by an error what the engine would refuse at once, and the answerer
// everything else, later and from another goroutine, as the engine does.
func (b *brokenEngine) Send(l *engine.Listing, c *engine.Command, to engine.Answerer) error {
	if b.do == nil {
		return b.Engine.Send(l, c, to)
	}
	err := b.do(l, c)
	if errors.Is(err, engine.ErrOverloaded) || errors.Is(err, engine.ErrClosed) {
		return err
	}
	go to.Answered(c, time.Now(), err)
	return nil
}

func (b *brokenEngine) Failed() <-chan struct{} {
	if b.failed != nil {
		return b.failed
	}
	return b.Engine.Failed()
}

// start starts a node. Change may alter the options.
func start(t *testing.T, change func(*ingest.Options)) *node {
	t.Helper()
	n := &node{t: t, journal: enginetest.NewMemoryJournal(), now: new(atomic.Int64)}
	n.now.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli())
	recovered, err := engine.Recover(n.journal)
	if err != nil {
		t.Fatal(err)
	}
	n.engine, err = engine.New(engine.Options{Shards: 2, IDs: n.journal.IDs(), Now: n.now.Load}, n.journal, recovered)
	if err != nil {
		t.Fatal(err)
	}
	options := ingest.Options{Engine: n.engine, Ledger: n.journal, Auth: openAuth(t), Now: n.now.Load}
	if change != nil {
		change(&options)
	}
	n.server, err = ingest.New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(listener) }()
	n.client = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := n.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func openAuth(t *testing.T) *ingest.Auth {
	t.Helper()
	a, err := ingest.NewAuth(ingest.AuthOptions{AdminToken: adminToken})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func closedAuth(t *testing.T) *ingest.Auth {
	t.Helper()
	a, err := ingest.NewAuth(ingest.AuthOptions{AdminToken: adminToken, Secret: authSecret, Now: func() time.Time { return authNow }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tokenOf returns the Authorization of a buyer, or of an admin by role.
func tokenOf(t *testing.T, buyer, role string) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": buyer, "exp": authNow.Add(time.Hour).Unix()}
	if role != "" {
		claims["role"] = role
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(authSecret)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + signed
}

// product puts a product on sale.
func (n *node) product(settings engine.Settings, stock int64) {
	n.t.Helper()
	if settings.Name == "" {
		settings.Name = settings.ID
	}
	if settings.Currency == "" {
		settings.Currency = "EUR"
	}
	if a, err := n.engine.Create(&settings, stock); err != nil || a.Outcome != engine.Accepted {
		n.t.Fatal(a.Outcome, err)
	}
}

// answer is a response, read.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// ask sends one request. Headers are "Name: value"; a body is sent as JSON
// unless a header says otherwise.
func (n *node) ask(method, path, body string, headers ...string) answer {
	n.t.Helper()
	request, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header[http.CanonicalHeaderKey(name)] = append(request.Header[http.CanonicalHeaderKey(name)], value)
		if name == "Content-Type" {
			request.Header[name] = []string{value}
		}
	}
	response, err := n.client.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer{n.t, response.StatusCode, response.Header, string(b)}
}

func (n *node) admin(method, path, body string) answer {
	n.t.Helper()
	return n.ask(method, path, body, "Authorization: Bearer "+adminToken)
}

// json reads the body as an object.
func (a answer) json() map[string]any {
	a.t.Helper()
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		a.t.Fatalf("%v: %q", err, a.body)
	}
	return m
}

func (a answer) text(name string) string {
	a.t.Helper()
	switch v := a.json()[name].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	case nil:
		return ""
	default:
		b, err := json.Marshal(v)
		if err != nil {
			a.t.Fatal(err)
		}
		return string(b)
	}
}

// is requires a status and, where it is a refusal, the problem's name; the
// problem must be whole.
func (a answer) is(status int, problem string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d %s: %s", a.status, status, problem, a.body)
	}
	if problem == "" {
		return a
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("a problem of type %q", got)
	}
	m := a.json()
	if m["type"] != "urn:floodgate:problem:"+problem {
		a.t.Errorf("problem %v, want %s", m["type"], problem)
	}
	if m["title"] == "" || m["detail"] == "" || m["title"] == nil || m["detail"] == nil || a.text("status") != strconv.Itoa(status) {
		a.t.Errorf("the problem is not whole: %s", a.body)
	}
	needs := status == 503 || status == 429 || problem == "sale-not-started"
	if has := a.header.Get("Retry-After") != ""; has != needs {
		a.t.Errorf("Retry-After there: %v, want %v: %s", has, needs, a.body)
	}
	return a
}

// names requires that the problem names the field where it lies.
func (a answer) names(field string) answer {
	a.t.Helper()
	if got := a.text("field"); got != field {
		a.t.Errorf("field %q, want %q: %s", got, field, a.body)
	}
	if !strings.Contains(a.text("detail"), field) {
		a.t.Errorf("the detail does not name %q: %s", field, a.body)
	}
	return a
}

// counters returns the numbers of a product, so that a test can tell that
// nothing moved.
func (n *node) counters(product string) [4]int64 {
	v := n.engine.Listing([]byte(product)).View()
	return [4]int64{v.Stock, v.Remaining, v.Held, v.Sold}
}

// raw sends bytes over a socket of its own and returns all that comes back until
// the server closes.
func (n *node) raw(request string) string {
	n.t.Helper()
	c := n.dial()
	defer c.Close()
	go c.Write([]byte(request)) // what the server does not read may block
	b, err := io.ReadAll(c)
	if err != nil {
		n.t.Fatalf("%v after %q", err, b)
	}
	return string(b)
}

func (n *node) dial() net.Conn {
	n.t.Helper()
	c, err := net.Dial("tcp4", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return c
}
