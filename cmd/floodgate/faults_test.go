//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"
)

// F03 and F41: whose answer was lost, before or with the node, asks again with
// the same key and is told of the one order there is.
func TestFaults_F03_F41_ALostAnswerIsHadByAskingAgain(t *testing.T) {
	const buyers = 60
	dir := t.TempDir()
	n := startReal(t, dir)
	lines := dial(t, n.url, buyers)
	key := func(i int) string { return fmt.Sprintf("Idempotency-Key: k-%d", i) }
	for i, l := range lines {
		if err := l.send("POST", "/buy", fmt.Sprintf(`{"buyer":"b-%d"}`, i), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all have bought", func() bool {
		return decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/demo", "").body).Sold == buyers
	})
	bodies := make([]string, buyers)
	again := func(i int) {
		t.Helper()
		a := n.ask(http.StatusCreated, "POST", "/v1/products/demo/orders", fmt.Sprintf(`{"buyer":"b-%d"}`, i), key(i))
		if a.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the answer to buyer %d who asks again does not say so", i)
		}
		if bodies[i] != "" && bodies[i] != a.body {
			t.Errorf("buyer %d was told %s and now %s", i, bodies[i], a.body)
		}
		bodies[i] = a.body
	}
	for i, l := range lines {
		if i%2 == 0 { // cut; the others hang on until the node is gone
			l.Close()
			again(i)
		}
	}
	n.kill()
	n = startReal(t, dir)
	for i := range lines {
		again(i)
	}
	if p := decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/demo", "").body); p.Sold != buyers {
		t.Errorf("%d buyers bought, and the product is %+v", buyers, p)
	}
	for i, l := range lines {
		if i%2 == 0 {
			continue
		}
		if a, err := l.read(); err != nil || a.status != http.StatusCreated || a.body != bodies[i] {
			t.Errorf("buyer %d was told %d %s %v, and asking again %s", i, a.status, a.body, err, bodies[i])
		}
	}
}

// round makes a crashRound of its own seed, whose products do not sell out.
func round(t *testing.T) (*crashRound, *rand.Rand) {
	seed := number(t, "FLOODGATE_CRASH_SEED", time.Now().UnixNano())
	t.Logf("FLOODGATE_CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	c := newCrashRound(t, random, 0)
	for id := range c.stock {
		c.stock[id] = 1_000_000
	}
	return c, random
}

// goesOn waits until so many more orders were answered, or no buyer is left:
// each of them ends when an answer does not come.
func (c *crashRound) goesOn(t *testing.T, more int) {
	t.Helper()
	count := func() (answered, gone int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.acknowledged + c.refused, c.unanswered
	}
	before, _ := count()
	until(t, "the sale goes on", func() bool {
		answered, gone := count()
		return answered >= before+more || gone == crashBuyers
	})
}

// F05: a node that stood still, for longer than a hold lasts and than anybody
// is kept waiting, goes on where it stood. F06: a node that is told to stop
// under load answers what it took, and exits with 0.
func TestFaults_F05_F06_StoppedContinuedAndDrainedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	n := startReal(t, dir)
	n.ask(http.StatusCreated, "PUT", "/v1/products/short", `{"stock":3,"hold_seconds":1}`, "Authorization: Bearer "+testToken)
	left := n.ask(http.StatusCreated, "POST", "/v1/products/short/orders", `{"quantity":2}`)
	c, random := round(t)
	c.create(n)
	c.sellUntil(n, random, func() {
		c.goesOn(t, 300)
		n.signal(syscall.SIGSTOP)
		<-time.After(1200 * time.Millisecond)
		n.signal(syscall.SIGCONT)
		c.goesOn(t, 300)
		until(t, "the hold that ran out is over", func() bool {
			return decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/short", "").body).Remaining == 3
		})
		n.signal(syscall.SIGTERM)
		n.wantExit(exitFine)
	})
	n = startReal(t, dir)
	c.check(n)
	if status := decode[orderJSON](t, n.ask(http.StatusOK, "GET", left.header.Get("Location"), "").body).Status; status != "expired" {
		t.Errorf("the hold is %s", status)
	}
	n.ask(http.StatusCreated, "POST", "/v1/products/short/orders", `{"quantity":3}`)
	t.Logf("%d orders acknowledged, %d refusals, %d requests unanswered of which %d had bought", c.acknowledged, c.refused, c.unanswered, c.bought)
}

// gauge reads one figure of /metrics.
func gauge(t *testing.T, n *realNode, name string) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(n.ask(http.StatusOK, "GET", "/metrics", "").body)
	if found == nil {
		t.Fatalf("no %s", name)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(value)
}

// atRest waits until clients left nothing behind (fault list, I12): no connection
// but the one that asks, and no more goroutines than that. Those that served
// clients wait some seconds for others before they go.
func atRest(t *testing.T, n *realNode, goroutines int) {
	t.Helper()
	until(t, "no connection is left over", func() bool {
		return gauge(t, n, "floodgate_http_connections") <= 1
	})
	if now := gauge(t, n, "go_goroutines"); now > goroutines {
		t.Errorf("%d goroutines are left, want %d at most", now, goroutines)
	}
}

// F08: where the system grants few descriptors, clients that are too many are
// told so or cut off, those inside are served, and the journal has what it needs.
func TestFaults_F08_FewDescriptors(t *testing.T) {
	const crowd = 500
	n := launchUnder(t, "-n 200", t.TempDir()).ready()
	n.ask(http.StatusOK, "POST", "/v1/products/demo/restock", `{"quantity":900}`, "Authorization: Bearer "+testToken)
	base := gauge(t, n, "go_goroutines")
	client.CloseIdleConnections()
	bought, turned, cut := make(map[string]string), 0, 0
	lines := dial(t, n.url, crowd)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, l := range lines {
		asking.Go(func() {
			a, err := l.ask("POST", "/buy", "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				cut++
			case a.is(http.StatusServiceUnavailable, "too-many-connections"):
				turned++
			case a.status == http.StatusCreated:
				bought[a.header.Get("Location")] = a.body
			default:
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	asking.Wait()
	t.Logf("of %d clients %d bought, %d were turned away, %d were cut off", crowd, len(bought), turned, cut)
	if len(bought) < 50 || turned == 0 {
		t.Errorf("of %d clients only %d bought, and %d were turned away", crowd, len(bought), turned)
	}
	for _, l := range lines {
		l.Close()
	}
	until(t, "there is room again", func() bool {
		a, err := request(t.Context(), "POST", n.url+"/buy", "")
		if err == nil && a.status == http.StatusCreated {
			bought[a.header.Get("Location")] = a.body
			return true
		}
		return false
	})
	for at, body := range bought {
		if a := n.ask(http.StatusOK, "GET", at, ""); a.body != body {
			t.Errorf("order was %s and is %s", body, a.body)
		}
	}
	atRest(t, n, base+crowd/2)
	if strings.Contains(n.stderr.String(), "panic") {
		t.Errorf("the log tells of a panic:\n%s", n.stderr)
	}
	n.signal(syscall.SIGTERM)
	n.wantExit(exitFine)
}

// F11: of two processes on one data directory the second ends at once.
func TestFaults_F11_TwoProcessesOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	n := startReal(t, dir)
	second := launch(t, dir)
	second.wantExit(exitFailed)
	if !strings.Contains(second.stderr.String(), "in use") {
		t.Errorf("it said:\n%s", second.stderr)
	}
	n.ask(http.StatusCreated, "POST", "/buy", "")
	n.kill()
	startReal(t, dir).ask(http.StatusCreated, "POST", "/buy", "") // a lock dies with its process
}

// F20, F21 and F23 on a real file system: the first write that it refuses ends
// the process with exit code 1, and what was acknowledged before is there.
func TestFaults_F20_F21_F23_TheFileSystemRefusesToGrowTheLog(t *testing.T) {
	dir := t.TempDir()
	n := launchUnder(t, "-f 512", dir).ready() // blocks of 512 bytes
	c, random := round(t)
	c.create(n)
	c.sellUntil(n, random, func() { n.wantExit(exitFailed) })
	if said := n.stderr.String(); !strings.Contains(said, syscall.EFBIG.Error()) {
		t.Errorf("the log does not tell why:\n%s", said)
	}
	n = startReal(t, dir)
	c.check(n)
	n.ask(http.StatusCreated, "POST", "/v1/products/demo/orders", "")
	t.Logf("%d orders acknowledged, %d requests unanswered of which %d had bought", c.acknowledged, c.unanswered, c.bought)
}

// F21: a disk that is nearly full stops orders and nothing else, until there is
// room again.
func TestFaults_F21_StorageFullIsToldAndPasses(t *testing.T) {
	out := newOutput()
	n := &node{
		flags: &serveFlags{
			Addr: "127.0.0.1:0", dataFlag: dataFlag{DataDir: t.TempDir()}, Shards: integer{n: 1}, MaxConnections: integer{n: 100},
			NodeName: "full", Ack: "journal", Sync: "always", AdminToken: testToken,
		},
		main: &Main{Getenv: environ(), Stdout: out, Stderr: out}, log: zerolog.New(out), failed: make(chan error, 1),
	}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.stop(nil); err != nil {
			t.Error(err)
		}
	}()
	p := &program{t: t, url: "http://" + n.addr.String()}
	p.ask(http.StatusCreated, "PUT", "/v1/products/held", `{"stock":2,"hold_seconds":600}`, "Authorization: Bearer "+testToken)
	kept := p.ask(http.StatusCreated, "POST", "/v1/products/held/orders", "").header.Get("Location")
	back := p.ask(http.StatusCreated, "POST", "/v1/products/held/orders", "").header.Get("Location")
	var free atomic.Uint64
	n.disk.looking.Lock()
	n.disk.free = func(string) (uint64, uint64, error) { return free.Load(), 100 << 30, nil }
	n.disk.looking.Unlock()
	n.disk.look()

	for _, key := range [][]string{nil, {"Idempotency-Key: k"}} {
		a, err := dial(t, p.url, 1)[0].ask("POST", "/v1/products/demo/orders", "", key...)
		if err != nil || !a.is(http.StatusServiceUnavailable, "unavailable") || !strings.Contains(a.body, "storage-full") {
			t.Errorf("a full disk is answered %d %s %v", a.status, a.body, err)
		}
	}
	if a := p.ask(http.StatusServiceUnavailable, "GET", "/readyz", ""); !strings.Contains(a.body, "storage-full") {
		t.Errorf("not ready, because %s", a.body)
	}
	p.ask(http.StatusOK, "POST", kept+"/confirm", "")
	p.ask(http.StatusOK, "POST", back+"/cancel", "")

	free.Store(50 << 30)
	n.disk.look()
	p.ask(http.StatusOK, "GET", "/readyz", "")
	if a := p.ask(http.StatusCreated, "POST", "/buy/demo", "", "Idempotency-Key: k"); a.header.Get("Idempotent-Replayed") != "" {
		t.Error("what was refused was remembered")
	}
}

// F22: while the disk does not answer nobody is told of an order, everybody is
// told something, and what they are told is true once it answers again.
func TestFaults_F22_TheDiskStalls(t *testing.T) {
	var stalled atomic.Pointer[chan struct{}]
	p := serveOn(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if gate := stalled.Load(); gate != nil && op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".log") {
			<-*gate
		}
		return nil
	})), "/data")
	gate := make(chan struct{})
	stalled.Store(&gate)
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	const buyers = 40
	answers := make([]answer, buyers)
	var asking sync.WaitGroup
	key := func(i int) string { return fmt.Sprintf("Idempotency-Key: k-%d", i) }
	for i, l := range dial(t, p.url, buyers) {
		asking.Go(func() {
			var err error
			if answers[i], err = l.ask("POST", "/buy", "", key(i)); err != nil {
				t.Errorf("buyer %d: %v", i, err)
			}
		})
	}
	asking.Wait() // though the disk stands still
	if a := p.ask(http.StatusOK, "GET", "/v1/products/demo", ""); decode[productJSON](t, a.body).Sold != 0 {
		t.Errorf("what is not on disk is told: %s", a.body)
	}
	stalled.Store(nil)
	release()
	refused := 0
	for i, was := range answers {
		if !was.is(http.StatusServiceUnavailable, "unavailable") && !was.is(http.StatusGatewayTimeout, "outcome-unknown") {
			t.Errorf("while the disk stands still the answer is %d %s", was.status, was.body)
		}
		a := p.ask(http.StatusCreated, "POST", "/buy", "", key(i))
		if was.status == http.StatusServiceUnavailable {
			refused++
			if a.header.Get("Idempotent-Replayed") != "" {
				t.Errorf("buyer %d was told that nothing was decided, and it was", i)
			}
		}
	}
	t.Logf("%d were told that nothing was decided, %d that it is unknown", refused, buyers-refused)
	if d := decode[productJSON](t, p.ask(http.StatusOK, "GET", "/v1/products/demo", "").body); d.Sold != buyers || d.Remaining != demoStock-buyers {
		t.Errorf("%d bought, and the product is %+v", buyers, d)
	}
}

// F26: a node whose log was cut after a crash does not listen. The operator may
// say that what is left is all there is.
func TestFaults_F26_ALogThatWasCutIsNotServed(t *testing.T) {
	dir := t.TempDir()
	n := startReal(t, dir)
	mark := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "journal.mark"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	was := mark()
	n.ask(http.StatusCreated, "POST", "/buy", "")
	until(t, "the mark is moved", func() bool { return mark() != was })
	n.kill()
	logs, err := filepath.Glob(filepath.Join(dir, "journal", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range logs {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	cut := launch(t, dir)
	cut.wantExit(exitDamaged)
	if said := cut.stderr.String(); strings.Contains(said, `"ready"`) || !strings.Contains(said, dir) {
		t.Errorf("it said:\n%s", said)
	}
	startReal(t, dir, "--accept-data-loss").ask(http.StatusOK, "GET", "/readyz", "")
}

// F40, F43 and I5: however often and wherever at once a key is used, there is
// one order and one answer, after a restart as well; used for something else it
// is refused.
func TestFaults_F40_F43_OneKeyManyTimesAtOnce(t *testing.T) {
	const keys, clients = 10, 50
	dir := t.TempDir()
	n := startReal(t, dir)
	n.ask(http.StatusCreated, "PUT", "/v1/products/keyed", fmt.Sprintf(`{"stock":%d,"limit_per_buyer":1}`, keys), "Authorization: Bearer "+testToken)
	const path = "/v1/products/keyed/orders"
	ask := func(l *line, k int) (answer, error) {
		return l.ask("POST", path, fmt.Sprintf(`{"buyer":"b-%d","quantity":1}`, k), fmt.Sprintf("Idempotency-Key: k %d", k))
	}
	var mu sync.Mutex
	bodies, firsts, early := make([]map[string]int, keys), make([]int, keys), 0
	for k := range bodies {
		bodies[k] = make(map[string]int)
	}
	gate := make(chan struct{})
	var asking sync.WaitGroup
	for _, l := range dial(t, n.url, clients) {
		asking.Go(func() {
			<-gate
			for k := range keys {
				a, err := ask(l, k)
				mu.Lock()
				switch {
				case err == nil && a.status == http.StatusCreated:
					bodies[k][a.header.Get("Location")+" "+a.body]++
					if a.header.Get("Idempotent-Replayed") == "" {
						firsts[k]++
					}
				case err == nil && a.is(http.StatusServiceUnavailable, "in-progress"):
					early++
				default:
					t.Errorf("key %d: %d %s %v", k, a.status, a.body, err)
				}
				mu.Unlock()
			}
		})
	}
	close(gate)
	asking.Wait()
	for k := range keys {
		if len(bodies[k]) != 1 || firsts[k] != 1 {
			t.Errorf("key %d was answered, as the first %d times: %v", k, firsts[k], bodies[k])
		}
	}
	t.Logf("%d were told to wait", early)
	sold := n.ask(http.StatusOK, "GET", "/v1/products/keyed", "").body
	if p := decode[productJSON](t, sold); p.Sold != keys || p.Remaining != 0 {
		t.Errorf("%d keys bought, and the product is %+v", keys, p)
	}
	n.kill()
	n = startReal(t, dir)
	l := dial(t, n.url, 1)[0]
	for k := range keys {
		if a, err := ask(l, k); err != nil || a.status != http.StatusCreated || bodies[k][a.header.Get("Location")+" "+a.body] == 0 {
			t.Errorf("key %d was answered %v, and after a restart %d %s %v", k, bodies[k], a.status, a.body, err)
		}
		a, err := l.ask("POST", path, fmt.Sprintf(`{"buyer":"b-%d","quantity":2}`, k), fmt.Sprintf("Idempotency-Key: k %d", k))
		if err != nil || !a.is(http.StatusUnprocessableEntity, "idempotency-mismatch") {
			t.Errorf("key %d for something else: %d %s %v", k, a.status, a.body, err)
		}
	}
	if a := n.ask(http.StatusOK, "GET", "/v1/products/keyed", ""); a.body != sold {
		t.Errorf("the product was %s, and after a restart it is %s", sold, a.body)
	}
}

// F44, I7 and I12: a client that leaves in the middle of its request buys
// nothing, one that leaves right after it buys all or nothing, and neither
// leaves anything behind.
func TestFaults_F44_ClientsThatLeave(t *testing.T) {
	const clients, at = 1_000, 100
	n := startReal(t, t.TempDir())
	n.ask(http.StatusCreated, "PUT", "/v1/products/left", fmt.Sprintf(`{"stock":%d}`, 4*clients), "Authorization: Bearer "+testToken)
	const path = "/v1/products/left/orders"
	base, files := gauge(t, n, "go_goroutines"), 0
	if len(regexp.MustCompile(`(?m)^process_open_fds `).FindString(n.ask(http.StatusOK, "GET", "/metrics", "").body)) > 0 {
		files = gauge(t, n, "process_open_fds")
	}
	for range clients / at {
		for i, l := range dial(t, n.url, at) {
			c := l.Conn.(*net.TCPConn)
			switch i % 4 {
			case 0: // in the middle of the body
				fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"quant", path)
			case 1: // in the middle of the head
				fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHos", path)
			default:
				if err := l.send("POST", path, `{"quantity":3}`); err != nil {
					t.Fatal(err)
				}
			}
			if i%2 == 0 {
				c.SetLinger(0) // resets the connection
			}
			c.Close()
		}
		atRest(t, n, base+2*at)
	}
	if files > 0 {
		until(t, "no descriptor is left over", func() bool { return gauge(t, n, "process_open_fds") <= files+4 })
	}
	p := decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/left", "").body)
	if p.Sold%3 != 0 || p.Sold > 3*clients/2 || p.Sold+p.Remaining != p.Stock || p.Held != 0 {
		t.Errorf("the product is %+v", p)
	}
	t.Logf("%d clients left, of the %d who had asked %d bought", clients, clients/2, p.Sold/3)
	n.ask(http.StatusConflict, "POST", path, fmt.Sprintf(`{"quantity":%d}`, p.Remaining+1))
	n.ask(http.StatusCreated, "POST", path, fmt.Sprintf(`{"quantity":%d}`, p.Remaining))
	n.ask(http.StatusConflict, "POST", path, "")
}

// F81: a hold that ran out while the node was down waits for its buyer, who
// could not confirm; its units are not sold to somebody else meanwhile.
func TestFaults_F81_AHoldOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	n := startReal(t, dir)
	n.ask(http.StatusCreated, "PUT", "/v1/products/held", `{"stock":3,"hold_seconds":1}`, "Authorization: Bearer "+testToken)
	const path = "/v1/products/held/orders"
	var orders []orderJSON
	for range 3 {
		orders = append(orders, decode[orderJSON](t, n.ask(http.StatusCreated, "POST", path, "").body))
	}
	n.kill()
	expires, err := time.Parse(time.RFC3339Nano, orders[2].ExpiresAt)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(expires))

	n = startReal(t, dir)
	n.ask(http.StatusConflict, "POST", path, "")
	if p := decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/held", "").body); p.Held != 3 {
		t.Errorf("the product is %+v", p)
	}
	for i, row := range []struct{ action, status string }{{"confirm", "confirmed"}, {"cancel", "cancelled"}} {
		at := "/v1/orders/" + orders[i].ID
		if o := decode[orderJSON](t, n.ask(http.StatusOK, "GET", at, "").body); o.Status != "held" {
			t.Errorf("the order is %+v", o)
		}
		if o := decode[orderJSON](t, n.ask(http.StatusOK, "POST", at+"/"+row.action, "").body); o.Status != row.status {
			t.Errorf("%s, and the order is %+v", row.action, o)
		}
	}
	if p := decode[productJSON](t, n.ask(http.StatusOK, "GET", "/v1/products/held", "").body); p.Held != 1 || p.Sold != 1 || p.Remaining != 1 {
		t.Errorf("the product is %+v", p)
	}
}
