package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

const (
	crashBuyers = 8
	// crashEpoch is how many rounds share a data directory, so that a restart
	// meets the remains of many crashes and a thousand rounds stay fast.
	crashEpoch = 50
)

// TestCrash holds promises 1 to 3 against the real program: it is killed at any
// moment, while it sells and while it starts, and after each restart
//
//   - every order that was acknowledged is there, with the fields it had;
//   - every idempotency key is answered as it was the first time, byte for byte;
//   - nothing is oversold, no limit passed, stock = remaining + held + sold;
//   - and what was not acknowledged either bought, once, or did not.
//
// FLOODGATE_CRASH_ROUNDS says how often, FLOODGATE_CRASH_SEED repeats the
// choices of a run. Only HTTP is used, and at the end the audit.
func TestCrash(t *testing.T) {
	rounds, seed := number(t, "FLOODGATE_CRASH_ROUNDS", 15), number(t, "FLOODGATE_CRASH_SEED", time.Now().UnixNano())
	t.Logf("FLOODGATE_CRASH_ROUNDS=%d FLOODGATE_CRASH_SEED=%d", rounds, seed)
	total := crashTotals{}
	for first := int64(0); first < rounds; first += crashEpoch {
		dir := t.TempDir()
		random := rand.New(rand.NewPCG(uint64(seed), uint64(first)))
		n := startReal(t, dir)
		for round := first; round < min(first+crashEpoch, rounds); round++ {
			c := newCrashRound(t, random, round)
			c.create(n)
			c.sell(n, random)
			for random.IntN(4) == 0 {
				killWhileStarting(t, dir, time.Duration(random.IntN(60))*time.Millisecond)
				total.starts++
			}
			n = startReal(t, dir)
			c.check(n)
			total.add(c)
			if t.Failed() {
				t.Fatalf("round %d failed; FLOODGATE_CRASH_SEED=%d", round, seed)
			}
		}
		n.kill()
		if code, stdout, stderr := run(t, environ(), "verify", "--data-dir="+dir); code != exitFine {
			t.Fatalf("verify: exit code %d; FLOODGATE_CRASH_SEED=%d:\n%s%s", code, seed, stdout, stderr)
		}
	}
	t.Logf("%d kills while selling, %d while starting: %d orders acknowledged, %d refusals, %d requests unanswered of which %d had bought",
		rounds, total.starts, total.known, total.refused, total.unknown, total.bought)
}

type crashTotals struct{ starts, known, refused, unknown, bought int }

func (t *crashTotals) add(c *crashRound) {
	t.known += c.acknowledged
	t.refused += c.refused
	t.unknown += c.unanswered
	t.bought += c.bought
}

func number(t *testing.T, name string, or int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return or
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// realNode is the program as a process of its own.
type realNode struct {
	t       *testing.T
	process *exec.Cmd
	stderr  *output
	url     string
	exited  chan struct{}
}

func launch(t *testing.T, dir string, args ...string) *realNode {
	t.Helper()
	return launchUnder(t, "", dir, args...)
}

// launchUnder is launch where the system grants less. The limit is what a
// shell's ulimit takes; empty: none.
func launchUnder(t *testing.T, limit, dir string, args ...string) *realNode {
	t.Helper()
	n := &realNode{t: t, stderr: newOutput(), exited: make(chan struct{})}
	args = append([]string{"serve", "--addr=127.0.0.1:0", "--data-dir=" + dir, "--admin-token=" + testToken}, args...)
	n.process = exec.Command(binary, args...)
	if limit != "" {
		n.process = exec.Command("sh", append([]string{"-c", "ulimit " + limit + ` && exec "$0" "$@"`, binary}, args...)...)
	}
	n.process.Stderr = n.stderr
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(n.exited)
		_ = n.process.Wait() // killed is an error, and what we want
	}()
	t.Cleanup(n.kill)
	return n
}

func startReal(t *testing.T, dir string, args ...string) *realNode {
	t.Helper()
	return launch(t, dir, args...).ready()
}

// ready returns once the node may sell.
func (n *realNode) ready() *realNode {
	n.t.Helper()
	select {
	case addr := <-n.stderr.ready:
		n.url = "http://" + addr
	case <-n.exited:
		n.t.Fatalf("the node did not start: %v\n%s", n.process.ProcessState, n.stderr)
	}
	return n
}

func (n *realNode) signal(s os.Signal) {
	n.t.Helper()
	if err := n.process.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// wantExit waits until the node has ended by itself, and holds its exit code.
func (n *realNode) wantExit(want int) {
	n.t.Helper()
	select {
	case <-n.exited:
		if code := n.process.ProcessState.ExitCode(); code != want {
			n.t.Errorf("exit code %d, want %d:\n%s", code, want, n.stderr)
		}
	case <-time.After(patience):
		n.t.Errorf("the node still runs:\n%s", n.stderr)
		n.kill()
	}
}

// ask is request where an answer must come, with the given status.
func (n *realNode) ask(want int, method, path, body string, headers ...string) answer {
	n.t.Helper()
	p := program{t: n.t, url: n.url}
	return p.ask(want, method, path, body, headers...)
}

// kill is kill -9. It returns once the process is gone; killing a process that
// is gone already does nothing.
func (n *realNode) kill() {
	_ = n.process.Process.Kill()
	<-n.exited
}

func killWhileStarting(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	n := launch(t, dir)
	<-time.After(after)
	n.kill()
}

// attempt is one request to buy that was acknowledged or not answered.
type attempt struct {
	product, buyer, key string
	quantity            int64
	body                string // of the 201; empty: not answered
	location            string
	action              string // what was asked of the held order afterwards
	actionKnown         bool   // and whether that was answered
	status              string // as read after the restart
}

// crashRound is what one life of a node is asked, and what it answered.
type crashRound struct {
	t        *testing.T
	stock    map[string]int64
	limited  string // the product with a limit
	limit    int64
	mu       sync.Mutex
	attempts []*attempt

	acknowledged, refused, unanswered, bought int
}

func newCrashRound(t *testing.T, random *rand.Rand, round int64) *crashRound {
	c := &crashRound{t: t, stock: make(map[string]int64), limit: 3}
	for _, kind := range []string{"plain", "limit", "held"} {
		// From sold out at once to never sold out.
		c.stock[fmt.Sprintf("%s-%d", kind, round)] = 1 + random.Int64N(1<<(4+random.IntN(9)))
	}
	c.limited = fmt.Sprintf("limit-%d", round)
	return c
}

func (c *crashRound) create(n *realNode) {
	c.t.Helper()
	for id, stock := range c.stock {
		limit, hold := int64(0), 0
		switch id[:5] {
		case "limit":
			limit = c.limit
		case "held-":
			hold = 3600
		}
		body := fmt.Sprintf(`{"name":"Crash","price_minor":1250,"currency":"EUR","stock":%d,"limit_per_buyer":%d,"hold_seconds":%d}`, stock, limit, hold)
		a, err := request(c.t.Context(), "PUT", n.url+"/v1/products/"+id, body, "Authorization: Bearer "+testToken)
		if err != nil || a.status/100 != 2 {
			c.t.Fatalf("create %s: %d %s %v", id, a.status, a.body, err)
		}
	}
}

// sell lets buyers buy until the node is killed under their hands.
func (c *crashRound) sell(n *realNode, random *rand.Rand) {
	share := random.Float64()
	life := 5*time.Millisecond + time.Duration(share*share*float64(495*time.Millisecond)) // most lives are short
	c.sellUntil(n, random, func() {
		<-time.After(life)
		n.kill()
	})
}

// sellUntil lets buyers buy until end has ended the node.
func (c *crashRound) sellUntil(n *realNode, random *rand.Rand, end func()) {
	var buyers sync.WaitGroup
	for i := range crashBuyers {
		own := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
		buyers.Go(func() { c.buy(n, own, i) })
	}
	end()
	buyers.Wait()
}

func (c *crashRound) buy(n *realNode, random *rand.Rand, number int) {
	ctx := context.Background()              // only the kill ends it
	ids := slices.Sorted(maps.Keys(c.stock)) // in an order, so that a seed repeats the choices
	for i := 0; ; i++ {
		a := &attempt{
			product: ids[random.IntN(len(ids))], buyer: fmt.Sprintf("b-%d", random.IntN(200)), quantity: 1 + random.Int64N(3),
		}
		if random.IntN(5) > 0 {
			a.key = fmt.Sprintf("k %d/%d", number, i)
		}
		answer, err := c.post(ctx, n, a)
		switch {
		case err != nil || answer.status == http.StatusGatewayTimeout:
			c.keep(a)
			return
		case answer.status != http.StatusCreated:
			c.refuse(answer)
			continue
		}
		a.body, a.location = answer.body, answer.header.Get("Location")
		c.keep(a)
		if a.product[:5] == "held-" && random.IntN(2) == 0 {
			a.action = []string{"confirm", "cancel"}[random.IntN(2)]
			answer, err := request(ctx, "POST", n.url+a.location+"/"+a.action, "")
			if err != nil {
				return
			}
			a.actionKnown = answer.status == http.StatusOK
			if !a.actionKnown && answer.status != http.StatusServiceUnavailable && answer.status != http.StatusGatewayTimeout {
				c.t.Errorf("%s %s: %d %s", a.action, a.location, answer.status, answer.body)
			}
		}
	}
}

func (c *crashRound) post(ctx context.Context, n *realNode, a *attempt) (answer, error) {
	var headers []string
	if a.key != "" {
		headers = append(headers, "Idempotency-Key: "+a.key)
	}
	body := fmt.Sprintf(`{"buyer":"%s","quantity":%d}`, a.buyer, a.quantity)
	return request(ctx, "POST", n.url+"/v1/products/"+a.product+"/orders", body, headers...)
}

func (c *crashRound) keep(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts = append(c.attempts, a)
	if a.body != "" {
		c.acknowledged++
	} else {
		c.unanswered++
	}
}

func (c *crashRound) refuse(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
	if a.status != http.StatusConflict && a.status != http.StatusServiceUnavailable {
		c.t.Errorf("refused with %d %s", a.status, a.body)
	}
}

// check holds the promises against the node that came back.
func (c *crashRound) check(n *realNode) {
	c.t.Helper()
	work := make(chan *attempt)
	var workers sync.WaitGroup
	for range crashBuyers {
		workers.Go(func() {
			for a := range work {
				c.checkAttempt(n, a)
			}
		})
	}
	for _, a := range c.attempts {
		work <- a
	}
	close(work)
	workers.Wait()
	c.checkBooks(n)
}

func (c *crashRound) checkAttempt(n *realNode, a *attempt) {
	ctx := c.t.Context()
	if a.body == "" {
		if a.key == "" {
			return // it may have bought; checkBooks leaves room for it
		}
		// Asking again is how a buyer learns what became of the first request.
		answer, err := c.post(ctx, n, a)
		if err != nil || answer.status != http.StatusCreated && answer.status != http.StatusConflict {
			c.t.Errorf("%s, key %q, asked again: %d %s %v", a.product, a.key, answer.status, answer.body, err)
			return
		}
		if answer.status == http.StatusConflict {
			return
		}
		if answer.header.Get("Idempotent-Replayed") == "true" {
			c.mu.Lock()
			c.bought++
			c.mu.Unlock()
		}
		a.body, a.location = answer.body, answer.header.Get("Location")
	}

	got, err := request(ctx, "GET", n.url+a.location, "")
	if err != nil || got.status != http.StatusOK {
		c.t.Errorf("acknowledged order %s is lost: %d %s %v", a.body, got.status, got.body, err)
		return
	}
	was, is := decode[map[string]any](c.t, a.body), decode[map[string]any](c.t, got.body)
	accepted, now := was["status"], is["status"]
	for _, changing := range []string{"status", "expires_at"} {
		delete(was, changing)
		delete(is, changing)
	}
	if !reflect.DeepEqual(was, is) {
		c.t.Errorf("order was %s and is %s", a.body, got.body)
	}
	done := map[string]any{"": accepted, "confirm": "confirmed", "cancel": "cancelled"}[a.action]
	if now != done && (a.actionKnown || now != accepted) {
		c.t.Errorf("order %s, asked to %q (answered: %v), is %s", a.body, a.action, a.actionKnown, got.body)
	}
	a.status, _ = now.(string)

	if a.key == "" {
		return
	}
	again, err := c.post(ctx, n, a)
	if err != nil || again.status != http.StatusCreated || again.body != a.body ||
		again.header.Get("Location") != a.location || again.header.Get("Idempotent-Replayed") != "true" {
		c.t.Errorf("key %q was answered %s, and now %d %s %v %v", a.key, a.body, again.status, again.body, again.header, err)
	}
}

// checkBooks counts units: those of all orders that are known, and room for
// those of requests without a key that were not answered.
func (c *crashRound) checkBooks(n *realNode) {
	known, room := make(map[string]int64), make(map[string]int64)
	perBuyer := make(map[string]int64)
	for _, a := range c.attempts {
		switch {
		case a.body == "" && a.key == "":
			room[a.product] += a.quantity
		case a.body != "" && a.status != "cancelled":
			known[a.product] += a.quantity
			if a.product == c.limited {
				perBuyer[a.buyer] += a.quantity
			}
		}
	}
	for buyer, units := range perBuyer {
		if units > c.limit {
			c.t.Errorf("%s has %d units of %s, the limit is %d", buyer, units, c.limited, c.limit)
		}
	}
	for id, stock := range c.stock {
		a, err := request(c.t.Context(), "GET", n.url+"/v1/products/"+id, "")
		if err != nil || a.status != http.StatusOK {
			c.t.Errorf("product %s: %d %s %v", id, a.status, a.body, err)
			continue
		}
		p := decode[productJSON](c.t, a.body)
		taken := p.Held + p.Sold
		if p.Stock != stock || p.Stock != p.Remaining+taken || p.Remaining < 0 || taken > stock {
			c.t.Errorf("%s had a stock of %d and is %+v", id, stock, p)
		}
		if taken < known[id] || taken > known[id]+room[id] {
			c.t.Errorf("%s: orders of %d units are known, of %d more may be there, and %d are taken", id, known[id], room[id], taken)
		}
	}
}

// panicEnv names the data directory of a process that is to panic; see TestMain.
const panicEnv = "FLOODGATE_TEST_PANIC"

// panicInAShard sells one unit, says which, and gives a shard what it cannot decide.
func panicInAShard(dir string) error {
	journal, err := wal.Open(wal.Options{Dir: dir, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	found, err := engine.Recover(journal)
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Options{IDs: journal.IDs(), Snapshots: journal}, journal, found)
	if err != nil {
		return err
	}
	if _, err := e.Create(&engine.Settings{ID: "p"}, 2); err != nil {
		return err
	}
	for _, op := range []engine.Op{engine.OpPlace, 200} {
		c := engine.AcquireCommand()
		c.Op, c.Quantity = op, 1
		if err := e.Do(e.Listing([]byte("p")), c); err != nil {
			return err
		}
		fmt.Println(c.Answer.ID)
	}
	return nil
}

// Fault list, F12: nothing goes on beside a shard that panicked, whose memory
// nobody can trust. What was acknowledged before is there after a restart.
func TestCrash_PanicInAShard(t *testing.T) {
	dir := t.TempDir()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), panicEnv+"="+dir)
	stderr := newOutput()
	process.Stderr = stderr
	stdout, err := process.Output()
	if err == nil || process.ProcessState.ExitCode() <= exitFine || !strings.Contains(stderr.String(), "engine.(*shard)") {
		t.Fatalf("the process survived: %v\n%s%s", err, stdout, stderr)
	}
	ids := strings.Fields(string(stdout))
	if len(ids) != 1 {
		t.Fatalf("it said %q", stdout)
	}
	n := startReal(t, dir)
	n.ask(http.StatusOK, "GET", "/v1/orders/"+ids[0], "")
	n.ask(http.StatusCreated, "POST", "/v1/products/p/orders", "")
	n.ask(http.StatusConflict, "POST", "/v1/products/p/orders", "")
}
