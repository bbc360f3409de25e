package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/ingest"
	"floodgate/wal"
)

const (
	testSecret = "k3V9-2f7q-Lw0x-81mz-Qe5t-Bn6r-Yp4c"
	testToken  = "Wq8-admin-of-the-test-Zr1"
)

// Ensure a node with no flags but its address sells what the contract says.
func TestServe_Demo(t *testing.T) {
	p := serve(t, t.TempDir())
	bought := p.ask(http.StatusCreated, "POST", "/buy", "")
	order := decode[orderJSON](t, bought.body)
	if order.Product != "demo" || order.Quantity != 1 || order.Status != "confirmed" {
		t.Errorf("got %+v", order)
	}
	if got := p.ask(http.StatusOK, "GET", bought.header.Get("Location"), ""); got.body != bought.body {
		t.Errorf("order is %s, and was %s", got.body, bought.body)
	}
	demo := decode[productJSON](t, p.ask(http.StatusOK, "GET", "/v1/products/demo", "").body)
	if want := (productJSON{ID: "demo", State: "open", Stock: 100, Remaining: 99, Sold: 1, Run: 1}); demo != want {
		t.Errorf("demo is %+v, want %+v", demo, want)
	}
	p.ask(http.StatusOK, "GET", "/readyz", "")
}

// Ensure a first start that was killed before it made the demo product does not
// leave a node with nothing to sell.
func TestServe_DemoAfterAStartThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	journal, err := wal.Open(wal.Options{Dir: dir, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	p := serve(t, dir)
	p.ask(http.StatusCreated, "POST", "/buy", "")
	p.drain(exitFine)
	again := serve(t, dir)
	if got := decode[productJSON](t, again.ask(http.StatusOK, "GET", "/v1/products/demo", "").body); got.Remaining != 99 {
		t.Errorf("demo is %+v", got)
	}
}

// Ensure the random admin token is said once, works, and that a configured one
// is never said.
func TestServe_AdminToken(t *testing.T) {
	restock := func(p *program, token string, want int) {
		t.Helper()
		p.ask(want, "POST", "/v1/products/demo/restock", `{"quantity":1}`, "Authorization: Bearer "+token)
	}
	t.Run("Random", func(t *testing.T) {
		p := serve(t, t.TempDir())
		said := regexp.MustCompile(`[0-9a-f]{48}`).FindAllString(p.stdout.String(), -1)
		if len(said) != 1 {
			t.Fatalf("said %d tokens:\n%s", len(said), p.stdout)
		}
		restock(p, said[0], http.StatusOK)
		restock(p, said[0]+"0", http.StatusUnauthorized)
		if strings.Contains(p.stderr.String(), said[0]) {
			t.Error("the token is in the log")
		}
	})
	t.Run("Configured", func(t *testing.T) {
		p := serve(t, t.TempDir(), "--admin-token="+testToken)
		restock(p, testToken, http.StatusOK)
		if all := p.stdout.String() + p.stderr.String(); strings.Contains(all, testToken) {
			t.Errorf("the token was said:\n%s", all)
		}
	})
}

// Ensure a token that the token command minted is who buys.
func TestServe_Token(t *testing.T) {
	env := environ("FLOODGATE_JWT_SECRET=" + testSecret)
	mint := func(args ...string) string {
		t.Helper()
		code, out, stderr := run(t, env, append([]string{"token"}, args...)...)
		if code != exitFine {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		return "Authorization: Bearer " + strings.TrimSpace(out)
	}
	p := serve(t, t.TempDir(), "--jwt-secret="+testSecret, "--jwt-audience=shop", "--jwt-issuer=us")
	buyer := mint("--sub=alice", "--aud=shop", "--iss=us")

	bought := p.ask(http.StatusCreated, "POST", "/buy", "", buyer)
	if order := decode[orderJSON](t, bought.body); order.Buyer != "alice" {
		t.Errorf("bought by %q", order.Buyer)
	}
	p.ask(http.StatusUnauthorized, "POST", "/buy", "")
	p.ask(http.StatusUnauthorized, "POST", "/buy", "", mint("--sub=alice", "--aud=another", "--iss=us"))
	p.ask(http.StatusForbidden, "POST", "/buy", `{"buyer":"bob"}`, buyer)
	p.ask(http.StatusNotFound, "GET", bought.header.Get("Location"), "", mint("--sub=bob", "--aud=shop", "--iss=us"))
	p.ask(http.StatusForbidden, "POST", "/v1/products/demo/pause", "", buyer)
	p.ask(http.StatusOK, "POST", "/v1/products/demo/pause", "", mint("--sub=root", "--role=admin", "--aud=shop", "--iss=us"))
	if all := p.stdout.String() + p.stderr.String(); strings.Contains(all, testSecret) || strings.Contains(all, strings.TrimPrefix(buyer, "Authorization: Bearer ")) {
		t.Errorf("a secret was said:\n%s", all)
	}
}

// Ensure a stop answers what is in flight, and that all of it is there after it.
func TestServe_Drain(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir, "--admin-token="+testToken)
	p.ask(http.StatusOK, "POST", "/v1/products/demo/restock", `{"quantity":100000}`, "Authorization: Bearer "+testToken)

	var buyers sync.WaitGroup
	var mu sync.Mutex
	var accepted []string
	enough := make(chan struct{})
	for range 8 {
		buyers.Go(func() {
			for {
				a, err := request(t.Context(), "POST", p.url+"/buy", "")
				if err != nil || a.status != http.StatusCreated {
					return // the node has gone, or says that it goes
				}
				mu.Lock()
				if accepted = append(accepted, a.body); len(accepted) == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	p.drain(exitFine)
	buyers.Wait()

	again := serve(t, dir)
	for _, body := range accepted {
		if got := again.ask(http.StatusOK, "GET", "/v1/orders/"+decode[orderJSON](t, body).ID, ""); got.body != body {
			t.Fatalf("order is %s, and was %s", got.body, body)
		}
	}
	demo := decode[productJSON](t, again.ask(http.StatusOK, "GET", "/v1/products/demo", "").body)
	if demo.Sold < int64(len(accepted)) || demo.Stock != demo.Remaining+demo.Held+demo.Sold {
		t.Errorf("%d were accepted, and demo is %+v", len(accepted), demo)
	}
	again.drain(exitFine)

	code, out, _ := run(t, environ(), "verify", "--data-dir="+dir)
	if code != exitFine || !strings.Contains(out, "Every unit is accounted for.") {
		t.Errorf("verify: exit code %d:\n%s", code, out)
	}
}

// Ensure a data directory has one process, and that the second says why not.
func TestServe_DataDirInUse(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir)
	code, _, stderr := run(t, environ(), "serve", "--addr=127.0.0.1:0", "--data-dir="+dir)
	if code != exitFailed || !strings.Contains(stderr, "in use") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	code, _, stderr = run(t, environ(), "verify", "--data-dir="+dir)
	if code != exitFailed || !strings.Contains(stderr, "in use") {
		t.Errorf("verify: exit code %d: %s", code, stderr)
	}
	p.ask(http.StatusCreated, "POST", "/buy", "")
}

// Ensure an address that is taken is said, and the data directory left closed.
func TestServe_AddressInUse(t *testing.T) {
	p := serve(t, t.TempDir())
	dir := t.TempDir()
	code, _, stderr := run(t, environ(), "serve", "--addr="+strings.TrimPrefix(p.url, "http://"), "--data-dir="+dir)
	if code != exitFailed || !strings.Contains(stderr, "address already in use") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	serve(t, dir)
}

// Ensure a damaged journal is not served, and that both commands say so by
// their exit code.
func TestServe_Damaged(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir)
	for range 10 {
		p.ask(http.StatusCreated, "POST", "/buy", "")
	}
	p.drain(exitFine)
	flipped := 0
	for _, pattern := range []string{"journal/*.sst", "journal/*.log"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) == 0 {
				continue
			}
			data[len(data)/3] ^= 0x10
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			flipped++
		}
	}
	if flipped == 0 {
		t.Fatal("there was nothing to damage")
	}
	if code, _, stderr := run(t, environ(), "serve", "--addr=127.0.0.1:0", "--data-dir="+dir); code != exitDamaged || !strings.Contains(stderr, dir) {
		t.Errorf("serve: exit code %d: %s", code, stderr)
	}
	if code, out, stderr := run(t, environ(), "verify", "--data-dir="+dir); code != exitDamaged || !strings.Contains(out, "DAMAGED") {
		t.Errorf("verify: exit code %d: %s%s", code, out, stderr)
	}
}

// Ensure a node sells nothing while the disk is full, says so, and goes on once
// there is room.
func TestDiskWatch(t *testing.T) {
	const total = 100 << 30
	free, failing := uint64(total), error(nil)
	d := newDiskWatch("", zerolog.Nop())
	d.free = func(string) (uint64, uint64, error) { return free, total, failing }
	for _, row := range []struct {
		free uint64
		err  error
		full bool
	}{
		{reserve, nil, false},
		{reserve - 1, nil, true},
		{reserve, nil, true}, // not enough to start again
		{reserve + reserve/4, nil, false},
		{0, errors.New("no such disk"), false}, // what is not known stops no sale
		{0, nil, true},
	} {
		free, failing = row.free, row.err
		d.look()
		if d.full.Load() != row.full || d.check().Ready == row.full {
			t.Errorf("%d free, %v: full %v, check %+v", row.free, row.err, d.full.Load(), d.check())
		}
	}

	guard := guardedEngine{disk: d}
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	c.Op = engine.OpPlace
	if err := guard.Do(nil, c); !errors.Is(err, ingest.ErrStorageFull) {
		t.Errorf("got %v", err)
	}
}

// Ensure orders are forgotten only when it was asked for, only old ones, and
// only those that no product needs any more; and that the audit still adds up.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir, "--admin-token="+testToken)
	admin := "Authorization: Bearer " + testToken
	old := p.ask(http.StatusCreated, "POST", "/buy", "")
	p.ask(http.StatusOK, "POST", "/v1/products/demo/reset", `{"stock":5}`, admin)
	p.ask(http.StatusCreated, "POST", "/buy", "")
	p.drain(exitFine)

	journal, err := wal.Open(wal.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := engine.Snapshot(journal); err != nil {
		t.Fatal(err)
	}
	if _, _, err := journal.OrdersByBuyer("anybody", 1, 0); err != nil { // waits for the index
		t.Fatal(err)
	}
	later := time.Now().Add(48 * time.Hour)
	for _, row := range []struct {
		name   string
		retain time.Duration
		prunes bool
	}{
		{"keep everything", 0, false},
		{"younger than what is kept", 72 * time.Hour, false},
		{"older than what is kept", time.Hour, true},
	} {
		first := journal.FirstSeq()
		n := &node{flags: &serveFlags{Retain: duration{d: row.retain}}, log: zerolog.Nop(), journal: journal}
		n.prune(later)
		if pruned := journal.FirstSeq() > first; pruned != row.prunes {
			t.Errorf("%s: first event was %d and is %d", row.name, first, journal.FirstSeq())
		}
	}
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := run(t, environ(), "verify", "--data-dir="+dir); code != exitFine {
		t.Errorf("verify: exit code %d:\n%s%s", code, stdout, stderr)
	}
	again := serve(t, dir)
	again.ask(http.StatusNotFound, "GET", old.header.Get("Location"), "")
	demo := decode[productJSON](t, again.ask(http.StatusOK, "GET", "/v1/products/demo", "").body)
	if want := (productJSON{ID: "demo", State: "open", Stock: 5, Remaining: 4, Sold: 1, Run: 2}); demo != want {
		t.Errorf("demo is %+v, want %+v", demo, want)
	}
}

// Fault list, F20: a disk that refuses a write ends the process with exit code 1,
// and nothing is acknowledged that a restart does not find.
func TestServe_DiskFails(t *testing.T) {
	for _, refuse := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSyncData} {
		t.Run(fmt.Sprint(refuse), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var failing atomic.Bool
			p := serveOn(t, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if failing.Load() && op.Kind == refuse && strings.HasSuffix(op.Path, ".log") {
					return syscall.EIO
				}
				return nil
			})), "/data")
			kept := p.ask(http.StatusCreated, "POST", "/buy", "")
			failing.Store(true)
			if a, err := request(t.Context(), "POST", p.url+"/buy", ""); err == nil && a.status < 500 {
				t.Errorf("a disk that refuses, and the answer is %d %s", a.status, a.body)
			}
			if code := <-p.code; code != exitFailed {
				t.Errorf("exit code %d:\n%s", code, p.stderr)
			}
			p.stop()
			p.stop = nil
			failing.Store(false)

			again := serveOn(t, disk.CrashClone(vfs.CrashCloneCfg{}), "/data")
			again.ask(http.StatusOK, "GET", kept.header.Get("Location"), "")
		})
	}
}

// Fault list, F06 and F22: a stop does not wait for a disk that does not answer,
// nor for clients that keep their connections. What it acknowledged is there.
func TestServe_DrainOnAStalledDisk(t *testing.T) {
	disk := vfs.NewCrashableMem()
	var stalled atomic.Bool
	stuck, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p := serveOn(t, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stalled.Load() && op.Kind == errorfs.OpFileSyncData {
			once.Do(func() { close(stuck) })
			<-release
		}
		return nil
	})), "/data")
	kept := p.ask(http.StatusCreated, "POST", "/buy", "") // and the connection is kept
	stalled.Store(true)
	answered := make(chan answer, 1)
	go func() {
		a, _ := request(t.Context(), "POST", p.url+"/buy", "", "Idempotency-Key: k")
		answered <- a
	}()
	<-stuck
	began := time.Now()
	p.drain(exitFine)
	if took := time.Since(began); took >= 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if a := <-answered; a.status != http.StatusGatewayTimeout && a.status != http.StatusServiceUnavailable {
		t.Errorf("a disk that does not answer, and the answer is %d %s", a.status, a.body)
	}
	if !strings.Contains(p.stderr.String(), "the disk does not answer") {
		t.Errorf("nobody is told:\n%s", p.stderr)
	}
	close(release)

	again := serveOn(t, disk.CrashClone(vfs.CrashCloneCfg{}), "/data")
	again.ask(http.StatusOK, "GET", kept.header.Get("Location"), "")
	again.ask(http.StatusCreated, "POST", "/buy", "", "Idempotency-Key: k")
}

// Ensure the real process ignores SIGHUP, and drains on SIGTERM.
func TestServe_Signals(t *testing.T) {
	n := startReal(t, t.TempDir())
	if err := n.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if a, err := request(t.Context(), "POST", n.url+"/buy", ""); err != nil || a.status != http.StatusCreated {
			t.Fatalf("after SIGHUP: %d %v", a.status, err)
		}
	}
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-n.exited
	if code := n.process.ProcessState.ExitCode(); code != exitFine {
		t.Errorf("exit code %d:\n%s", code, n.stderr)
	}
}

// Ensure the figures of disk and journal are on /metrics.
func TestServe_Metrics(t *testing.T) {
	p := serve(t, t.TempDir())
	p.ask(http.StatusCreated, "POST", "/buy", "")
	text := p.ask(http.StatusOK, "GET", "/metrics", "").body
	for _, name := range []string{"floodgate_disk_free_bytes", "floodgate_disk_full 0", "floodgate_journal_disk_bytes", `floodgate_journal_fsync_seconds{quantile="0.99"}`} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("%s is missing", name)
		}
	}
}
