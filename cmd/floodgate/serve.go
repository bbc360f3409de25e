package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/ingest"
	"floodgate/wal"
)

const (
	// drainFor bounds how long a stop waits for clients to take their answers. It
	// is less than the ten seconds after which supervisors lose their patience.
	drainFor = 8 * time.Second
	// stopFor bounds the whole stop, the disk's part of it included.
	stopFor = 9 * time.Second
	// holdGrace is how long a hold lives at least after a restart: its buyer
	// could not confirm while the node was down.
	holdGrace = 30 * time.Second
)

// serveCommand runs a node.
type serveCommand struct{ serveFlags }

func (c *serveCommand) run(ctx context.Context, m *Main) error {
	if err := c.validate(); err != nil {
		return err
	}
	n := &node{flags: &c.serveFlags, main: m, log: m.logger(), failed: make(chan error, 1)}
	err := n.start()
	if err == nil {
		err = n.wait(ctx)
	}
	if stopErr := n.stop(err); err == nil {
		err = stopErr
	}
	switch {
	case err == nil:
		n.log.Info().Msg("stopped; everything acknowledged is on disk")
		return nil
	case errors.Is(err, engine.ErrDamaged):
		return damaged{err}
	}
	return err
}

// logger returns where the log goes: lines for a person at a terminal, JSON for
// everything else.
func (m *Main) logger() zerolog.Logger {
	out := m.Stderr
	if terminal(out) {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).Level(zerolog.InfoLevel).With().Timestamp().Logger()
}

// node is a node that is being started, runs, or is being stopped.
type node struct {
	flags  *serveFlags
	main   *Main
	log    zerolog.Logger
	failed chan error // the first reason to end that is not a signal

	adminToken string
	fresh      bool // nothing was ever stored in the data directory
	journal    *wal.Journal
	engine     *engine.Engine
	disk       *diskWatch
	server     *ingest.Server
	serving    chan struct{} // closed when the server accepts nothing more
	addr       net.Addr
	keeping    *housekeeping
}

// start is the order of things, and the order is the point: nothing is sold
// before all that was sold is known, and nobody can connect before something
// can be sold.
func (n *node) start() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"lock and open the journal", n.openJournal}, // first, so that a second process changes nothing
		{"recover what was sold", n.recover},
		{"make the demo product", n.makeDemo},
		{"make the server", n.makeServer},
		{"watch the disk", n.watchDisk}, // before the first order, which may find no room
		{"listen", n.listen},            // a connection is a promise to answer
		{"say so", n.announce},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// wait returns when the context ends, or with what keeps the node from going on.
func (n *node) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		n.log.Info().Msg("stopping: answering what is in flight")
		return nil
	case <-n.engine.Failed():
		// Memory is ahead of the disk now. Only a replay may repair that, so the
		// process ends and says so; whoever keeps it running starts it again.
		return fmt.Errorf("the journal failed, a restart finds out what was stored: %w", errors.Join(n.engine.Stats().Failed, n.journal.Err()))
	case err := <-n.failed:
		return err
	}
}

// stop undoes start in reverse. Why is nil where the node was asked to stop.
// Whatever was not made is not there to be stopped.
func (n *node) stop(why error) error {
	began, limit := time.Now(), drainFor
	if why != nil {
		limit = 2 * time.Second // those who wait for a journal that failed wait in vain
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var faults []error
	if n.server != nil {
		// Unready at once; then no new connections, then an answer for every
		// request that was read.
		if err := n.server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			faults = append(faults, err)
		} else if err != nil {
			n.log.Warn().Dur("after", limit).Msg("some clients did not take their answers in time")
		}
		if n.serving != nil {
			<-n.serving
		}
	}
	closed := make(chan error, 1)
	// A journal that failed may hang for ever. There is nothing in memory that the
	// disk may still be given, so then the process just ends.
	broken := why != nil && n.journal != nil && n.journal.Err() != nil
	go func() { closed <- n.close(broken) }()
	select {
	case err := <-closed:
		faults = append(faults, err)
	case <-time.After(time.Until(began.Add(stopFor))):
		// What was acknowledged is on the disk already, and nobody was promised
		// the rest: a restart finds out what became of it.
		const said = "the disk does not answer: not waiting for it any longer"
		if n.flags.Sync == "none" {
			faults = append(faults, errors.New(said+", and with --sync=none the last orders may be lost"))
		} else {
			n.log.Warn().Msg(said)
		}
	}
	return errors.Join(faults...)
}

// close closes what keeps the orders, unless that is broken. It waits for the disk.
func (n *node) close(broken bool) error {
	if n.keeping != nil {
		n.keeping.stop()
	}
	if broken {
		return nil
	}
	var faults []error
	if n.engine != nil {
		faults = append(faults, n.engine.Close())
	}
	if n.journal != nil {
		faults = append(faults, n.journal.Close())
	}
	return errors.Join(faults...)
}

func (n *node) openJournal() (err error) {
	n.journal, err = wal.Open(wal.Options{
		Dir:            n.flags.DataDir,
		FS:             n.main.FS,
		NoSync:         n.flags.Sync == "none",
		AcceptDataLoss: n.flags.AcceptDataLoss,
		Logger:         n.log,
		Fatal:          n.fail,
	})
	return err
}

// fail ends the node with the first reason there is.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

func (n *node) recover() error {
	began := time.Now()
	found, err := engine.Recover(n.journal)
	if err != nil {
		return err
	}
	now := time.Now()
	if last := max(found.LastAt, n.journal.LastAt()); last > now.UnixMilli() {
		n.log.Warn().Time("last_event", time.UnixMilli(last)).Msg("the clock was set back since the last order")
	}
	found.GraceHolds(now.Add(holdGrace).UnixMilli())
	n.fresh = found.Seq == 0
	n.engine, err = engine.New(engine.Options{
		Shards:     n.flags.Shards.n,
		IDs:        n.journal.IDs(),
		Snapshots:  n.journal,
		OnSnapshot: n.snapshotMade,
	}, n.journal, found)
	if err != nil {
		return err
	}
	n.log.Info().Int("products", len(found.Products)).Uint64("sequence", found.Seq).Uint64("replayed", found.Replayed).
		Dur("took_ms", time.Since(began)).Msg("recovered")
	return nil
}

func (n *node) snapshotMade(seq uint64, products int, took time.Duration, err error) {
	if err != nil {
		n.log.Error().Err(err).Msg("a snapshot failed; the journal has everything, a restart takes longer")
		return
	}
	n.log.Info().Uint64("sequence", seq).Int("products", products).Dur("took_ms", took).Msg("snapshot made")
}

const demoStock = 100

// makeDemo gives a first start something to sell. So does the start after one
// that was killed before it got here.
func (n *node) makeDemo() error {
	if !n.fresh {
		return nil
	}
	answer, err := n.engine.Create(&engine.Settings{
		ID: ingest.DemoProduct, Name: "Demo product", Price: 1999, Currency: "EUR",
	}, demoStock)
	if err == nil && answer.Outcome != engine.Accepted {
		err = errors.New(answer.Outcome.String())
	}
	return err
}

func (n *node) makeServer() error {
	n.adminToken = n.flags.AdminToken
	if n.adminToken == "" {
		room := make([]byte, 24)
		rand.Read(room) // never fails; see its documentation
		n.adminToken = hex.EncodeToString(room)
	}
	options := n.flags.authOptions()
	options.AdminToken = n.adminToken
	options.OnReload = func(err error) {
		if err != nil {
			n.log.Error().Err(err).Msg("JWKS file")
			return
		}
		n.log.Info().Msg("JWKS file read again; its keys are in force")
	}
	auth, err := ingest.NewAuth(options)
	if err != nil {
		f := &faults{}
		f.auth(err)
		return f
	}
	n.disk = newDiskWatch(n.flags.DataDir, n.log)
	n.server, err = ingest.New(ingest.Options{
		Engine:         guardedEngine{n.engine, n.disk},
		Ledger:         n.journal,
		Auth:           auth,
		DefaultProduct: n.flags.DefaultProduct,
		MaxConnections: n.maxConnections(),
		Logger:         n.log,
		Ready:          n.checks,
		Collectors:     []prometheus.Collector{storageMetrics{n}},
	})
	return err
}

// maxConnections returns how many connections there can be. Where the system
// grants fewer descriptors than were asked for, the promise of a clear 503 is
// kept by lowering the limit: past the system's own, clients would just hang.
func (n *node) maxConnections() int {
	const reserved = 1024 // for the journal's tables, the log and whoever looks in
	asked := n.flags.MaxConnections.n
	limit, ok := descriptorLimit()
	if !ok || limit >= uint64(asked)+reserved {
		return asked
	}
	granted := max(int(limit)-reserved, int(limit)/2, 1)
	if granted >= asked {
		return asked
	}
	n.log.Warn().Int("asked", asked).Int("granted", granted).Uint64("descriptors", limit).
		Msg("fewer connections than --max-connections: raise the limit of open files (ulimit -n)")
	return granted
}

// checks tell what the node needs in order to sell.
func (n *node) checks() []ingest.Check {
	journal := ingest.Check{Name: "journal", Ready: true, State: "ok"}
	if err := n.journal.Err(); err != nil {
		journal = ingest.Check{Name: "journal", State: "failed", Detail: "The journal takes nothing more; only a restart tells what it stored."}
	}
	durability := ingest.Check{Name: "sync", Ready: true, State: "always"}
	if n.flags.Sync == "none" {
		durability.State = "none"
		durability.Detail = "Orders are acknowledged before they are on disk: a crash of the process or a power cut loses the last of them."
	}
	return []ingest.Check{journal, durability, n.disk.check()}
}

func (n *node) watchDisk() error {
	n.disk.look()
	n.keeping = startHousekeeping(n)
	return nil
}

func (n *node) listen() error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", n.flags.Addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s: %w (is a node running already? --addr chooses another address)", n.flags.Addr, syscall.EADDRINUSE)
		}
		return err
	}
	n.addr = listener.Addr()
	n.serving = make(chan struct{})
	go func() {
		defer close(n.serving)
		if err := n.server.Serve(listener); err != nil && !errors.Is(err, ingest.ErrClosed) {
			n.fail(err)
		}
	}()
	return nil
}

// announce tells a person what to type and a machine that the node is ready.
func (n *node) announce() error {
	f := n.flags
	_, port, err := net.SplitHostPort(n.addr.String())
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(f.Addr)
	if err != nil {
		return err
	}
	beyond := f.validateAddr(&faults{})
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	url := "http://" + net.JoinHostPort(host, port)

	paint := func(code, s string) string { return s }
	if terminal(n.main.Stdout) && n.main.Getenv("NO_COLOR") == "" {
		paint = func(code, s string) string { return "\x1b[" + code + "m" + s + "\x1b[0m" }
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %s  %s\n", paint("2", fmt.Sprintf("%-11s", name)), fmt.Sprintf(format, args...))
	}
	dir := f.DataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	fmt.Fprintf(&b, "\n  %s\n\n", paint("1", versionLine()))
	line("Listening", "%s", paint("36", url))
	if n.fresh {
		line("Data", "%s (new: %d units of %s are for sale)", dir, demoStock, ingest.DemoProduct)
	} else {
		line("Data", "%s", dir)
	}
	if f.AdminToken == "" {
		line("Admin token", "%s (random; said this once)", paint("33", n.adminToken))
	} else {
		line("Admin token", "the one that was configured")
	}
	header := ""
	switch {
	case f.JWTSecret != "":
		line("Buyers", "need a JWT; floodgate token --sub u-1 mints one from the same secret")
		header = `-H "Authorization: Bearer $(floodgate token --sub u-1)" `
	case f.JWKSFile != "":
		line("Buyers", "need a JWT signed with a key of %s", f.JWKSFile)
		header = `-H "Authorization: Bearer $TOKEN" `
	case beyond:
		line("Buyers", "%s", paint("31", "anybody who can reach this machine, in anybody's name (--insecure-open-buyers)"))
	default:
		line("Buyers", "anybody on this machine")
	}
	if f.Sync == "none" {
		line("Durability", "%s", paint("31", "--sync=none: a crash or a power cut loses orders that were acknowledged"))
		n.log.Warn().Msg("--sync=none: orders are acknowledged before they are on disk, a crash of the process or a power cut loses the last of them")
	}
	fmt.Fprintln(&b)
	line("Buy one", "curl -X POST %s%s/buy", header, url)
	line("Look", "curl %s/v1/products", url)
	line("Administer", `curl -X POST -H "Authorization: Bearer ADMIN_TOKEN" -d '{"quantity":50}' -H "Content-Type: application/json" %s/v1/products/%s/restock`, url, ingest.DemoProduct)
	line("Stop", "Ctrl-C")
	fmt.Fprintln(&b)
	if _, err := fmt.Fprint(n.main.Stdout, b.String()); err != nil {
		n.log.Warn().Err(err).Msg("nobody reads what is said on start")
	}
	v, _ := versions()
	n.log.Info().Str("addr", n.addr.String()).Str("node", f.NodeName).Str("data_dir", dir).Bool("beyond_loopback", beyond).
		Str("sync", f.Sync).Int("shards", f.Shards.n).Str("version", v).Msg("ready")
	return nil
}
