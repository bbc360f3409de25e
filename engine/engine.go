package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Engine hands each command to the shard that owns its product and waits for the
// durable answer. It is safe for concurrent use.
type Engine struct {
	opts    Options
	ids     *IDs
	shards  []*shard
	commit  *committer
	listing atomic.Pointer[map[string]*Listing]

	creating sync.Mutex          // one product is created at a time
	unknown  map[string]*Listing // created in their shards, perhaps not durably: the next Create has to meet them
	failed   chan struct{}
	failure  atomic.Pointer[error]
	snaps    snapshotter
	telling  *telling

	overloaded, givenUp atomic.Uint64

	deciding  sync.WaitGroup // the shards
	storing   sync.WaitGroup // the committer
	tending   sync.WaitGroup // watchdog and snapshotter
	answering sync.WaitGroup
	stop      chan struct{}
	stopOnce  sync.Once
}

// Options are the engine's knobs. Zero means the default.
type Options struct {
	Shards        int           // single-owner goroutines; default: number of cores
	InboxLimit    int           // commands that may wait for one shard; default 16,384
	MaxProducts   int           // default 100,000
	StallAfter    time.Duration // give a command up that waited so long; default 1 s
	SnapshotEvery uint64        // events between snapshots; default 2,000,000

	// Now tells the time in Unix milliseconds; default: the system's clock.
	Now func() int64
	// IDs makes the ids of orders without an idempotency key. Required.
	IDs *IDs
	// Snapshots is where snapshots go; nil: none are made.
	Snapshots SnapshotStore
	// OnSnapshot hears of each snapshot that was made or failed; may be nil.
	OnSnapshot func(seq uint64, products int, took time.Duration, err error)
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Shards == 0 {
		o.Shards = runtime.GOMAXPROCS(0)
	}
	if o.InboxLimit == 0 {
		o.InboxLimit = 16_384
	}
	if o.MaxProducts == 0 {
		o.MaxProducts = 100_000
	}
	if o.StallAfter == 0 {
		o.StallAfter = time.Second
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = 2_000_000
	}
	if o.Now == nil {
		o.Now = func() int64 { return time.Now().UnixMilli() }
	}
	if o.OnSnapshot == nil {
		o.OnSnapshot = func(uint64, int, time.Duration, error) {}
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var faults []error
	within := func(field string, value, low, high int) {
		if value < low || value > high {
			faults = append(faults, fmt.Errorf("%s: %d is not within %d to %d", field, value, low, high))
		}
	}
	within("Shards", o.Shards, 1, 1024)
	within("InboxLimit", o.InboxLimit, 1, 1<<20)
	within("MaxProducts", o.MaxProducts, 1, 10_000_000)
	if o.StallAfter < 10*time.Millisecond {
		faults = append(faults, fmt.Errorf("StallAfter: %v is less than 10ms", o.StallAfter))
	}
	if o.IDs == nil {
		faults = append(faults, errors.New("IDs: missing"))
	}
	if len(faults) > 0 {
		return fmt.Errorf("engine: %w", errors.Join(faults...))
	}
	return nil
}

// Listing is a product as the outside sees it.
type Listing struct {
	id    string
	shard *shard
	view  atomic.Pointer[View]

	// The shard's own.
	product *Product
	touched bool
	due     int64
}

// ID returns the product's id.
func (l *Listing) ID() string { return l.id }

// View returns the product's counters as of its last durable event.
func (l *Listing) View() *View { return l.view.Load() }

// Refusal returns the outcome where the durable state alone refuses an order of
// that many units, and 0 where the shard must be asked. It must not be used for
// an order with an idempotency key: that may have bought before. Unlike the
// shard it does not know the buyer, so a sold out product answers SoldOut to a
// buyer who is at their limit as well.
func (l *Listing) Refusal(now, quantity int64) Outcome {
	v := l.view.Load()
	switch {
	case !v.Opened && now < v.Settings.StartsAt:
		return NotStarted
	case v.Closed:
		return Ended // the end by the clock is the shard's to see, and to journal
	case v.Settings.EndsAt != 0 && now >= v.Settings.EndsAt:
		return 0
	case v.Paused:
		return Paused
	case v.Remaining == 0:
		return SoldOut
	}
	return 0
}

// New starts an engine on what Recover found. The journal is the engine's until
// Close returned.
func New(opts Options, journal Journal, from *Recovered) (*Engine, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{opts: opts, ids: opts.IDs, unknown: make(map[string]*Listing), failed: make(chan struct{}), stop: make(chan struct{})}
	e.telling = newTelling(runtime.GOMAXPROCS(0))
	e.commit = newCommitter(journal, from.Seq, e.telling, e.fail)
	e.commit.met.seq.Store(from.Seq)
	for range opts.Shards {
		s := newShard(opts.InboxLimit, e.telling, e.commit, e.opts.Now)
		e.shards = append(e.shards, s)
		e.commit.shards = append(e.commit.shards, s)
	}
	listings := make(map[string]*Listing, len(from.Products))
	for id, p := range from.Products {
		l := e.list(p)
		listings[id] = l
		l.shard.schedule(l)
	}
	e.listing.Store(&listings)

	for range e.telling.tellers {
		e.run(&e.answering, "answerer", e.tell)
	}
	e.run(&e.storing, "committer", e.commit.run)
	for i, s := range e.shards {
		e.run(&e.deciding, fmt.Sprintf("shard-%d", i), s.run)
	}
	e.run(&e.tending, "watchdog", e.watch)
	if opts.Snapshots != nil {
		e.run(&e.tending, "snapshotter", e.snapshots)
	}
	return e, nil
}

// run starts a goroutine that Close waits for, named in profiles.
func (e *Engine) run(group *sync.WaitGroup, name string, f func()) {
	group.Go(func() {
		pprof.Do(context.Background(), pprof.Labels("floodgate", name), func(context.Context) { f() })
	})
}

func (e *Engine) list(p *Product) *Listing {
	h := fnv.New32a()
	h.Write([]byte(p.settings.ID))
	l := &Listing{id: p.settings.ID, shard: e.shards[h.Sum32()%uint32(len(e.shards))], product: p}
	l.view.Store(p.View())
	return l
}

// Listing returns the product with that id, nil where there is none.
func (e *Engine) Listing(id []byte) *Listing { return (*e.listing.Load())[string(id)] }

// Listings returns all products, by id.
func (e *Engine) Listings() []*Listing {
	all := slices.Collect(maps.Values(*e.listing.Load()))
	slices.SortFunc(all, func(a, b *Listing) int { return strings.Compare(a.id, b.id) })
	return all
}

// Do asks the product's shard and waits until the answer is durable. Nil means
// that c.Answer is valid. The errors are those of errors.go: ErrOverloaded,
// ErrStalled and ErrClosed say that nothing happened, the others that we do not
// know.
func (e *Engine) Do(l *Listing, c *Command) error {
	b, err := e.push(l, c)
	if err != nil {
		return err
	}
	<-b.done
	return e.settle(c, b.state.Load())
}

// Send asks the product's shard and returns. Unless it returns an error, which
// says that nothing happened, the answerer is told the answer once it is durable,
// perhaps before Send has returned. Until then the command is the engine's.
func (e *Engine) Send(l *Listing, c *Command, to Answerer) error {
	c.answerer = to
	_, err := e.push(l, c)
	if err != nil {
		c.answerer = nil
	}
	return err
}

func (e *Engine) push(l *Listing, c *Command) (*batch, error) {
	c.listing = l
	b, err := l.shard.inbox.push(c)
	if errors.Is(err, ErrOverloaded) {
		e.overloaded.Add(1)
	}
	return b, err
}

// name fills in the order's id. It is the waiter's work, not the shard's.
func (e *Engine) name(c *Command) {
	a := &c.Answer
	switch {
	case c.Op != OpPlace || a.Outcome != Accepted && a.Outcome != Replayed:
	case len(c.key) > 0:
		a.ID = KeyedID(c.listing.id, a.Run, c.buyer, c.key)
	default:
		a.ID = e.ids.Sequential(a.Seq, a.At, &c.scratch)
	}
}

// Create makes a product that does not exist, with that stock. Where it exists,
// the outcome is ProductExists and nothing changes.
func (e *Engine) Create(settings *Settings, stock int64) (Answer, error) {
	e.creating.Lock()
	defer e.creating.Unlock()
	before := *e.listing.Load()
	if l := before[settings.ID]; l != nil {
		return Answer{Outcome: ProductExists, View: l.View()}, nil
	}
	if len(before) >= e.opts.MaxProducts {
		return Answer{}, ErrTooManyProducts
	}
	l := e.unknown[settings.ID]
	if l == nil {
		l = e.list(NewProduct(settings.ID))
	}
	c := AcquireCommand()
	defer ReleaseCommand(c)
	c.Op, c.Settings, c.Quantity = OpCreate, settings, stock
	if err := e.Do(l, c); err != nil {
		if errors.Is(err, ErrUnknown) {
			e.unknown[settings.ID] = l
		}
		return Answer{}, err
	}
	delete(e.unknown, settings.ID)
	after := make(map[string]*Listing, len(before)+1)
	maps.Copy(after, before)
	after[settings.ID] = l
	e.listing.Store(&after)
	return c.Answer, nil
}

// Failed is closed when the journal failed; Stats tells why.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

func (e *Engine) fail(err error) {
	e.failure.Store(&err)
	for _, s := range e.shards {
		s.inbox.close(ErrJournalFailed)
	}
	close(e.failed)
}

// watch gives up what waits for a journal that stalls, so that a buyer hears
// something while the disk does not answer.
func (e *Engine) watch() {
	const looks = 10
	ticker := time.NewTicker(e.opts.StallAfter / looks)
	defer ticker.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-ticker.C:
			for _, s := range e.shards {
				e.givenUp.Add(uint64(s.inbox.tick(looks)))
			}
		}
	}
}

// Close refuses further commands, answers those that are waiting and returns
// once all is durable. It may be called more than once.
func (e *Engine) Close() error {
	e.stopOnce.Do(func() {
		for _, s := range e.shards {
			s.inbox.close(ErrClosed)
		}
		e.deciding.Wait()
		e.commit.close()
		e.storing.Wait()
		close(e.stop)
		e.tending.Wait()
		close(e.telling.queue)
		e.answering.Wait()
	})
	return e.err()
}

func (e *Engine) err() error {
	if p := e.failure.Load(); p != nil {
		return fmt.Errorf("%w: %w", ErrJournalFailed, *p)
	}
	return nil
}

// Stats reads the engine's counters.
func (e *Engine) Stats() Stats {
	s := Stats{
		Overloaded: e.overloaded.Load(), GivenUp: e.givenUp.Load(),
		CommitSize: e.commit.met.events.read(), CommitNanos: e.commit.met.latency.read(),
		Seq: e.commit.met.seq.Load(), Failed: e.err(), Snapshots: e.snaps.made.Load(),
	}
	if e.opts.Snapshots != nil {
		s.SnapshotSeq = e.opts.Snapshots.SnapshotSeq()
	}
	products := make(map[*shard]int)
	for _, l := range *e.listing.Load() {
		products[l.shard]++
	}
	for _, sh := range e.shards {
		st := ShardStats{InboxDepth: sh.inbox.depth(), InboxLimit: e.opts.InboxLimit, BusyNanos: sh.met.busy.Load(), Products: products[sh]}
		for o := range sh.met.outcomes {
			n := sh.met.outcomes[o].Load()
			s.Outcomes[o] += n
			st.Decisions += n
		}
		s.Shards = append(s.Shards, st)
		s.Batches.add(sh.met.batches.read())
	}
	return s
}
