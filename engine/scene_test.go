package engine_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"floodgate/engine"
)

// The tables of product_test.go are text, so that they stay aligned and read as
// the specification. A row of a story is
//
//	command | outcome and what else the answer says | remaining held sold
//
// and its state before is that of the row above. A row of a table has its own
// state before, as commands that are all accepted, in front:
//
//	commands; commands | command | outcome ... | remaining held sold
//
// Commands are written as
//
//	create 5 limit=2 hold=60 price=100 starts=10 ends=20
//	place a 2 key=k         a buyer called - is anonymous
//	confirm 0               the order with number 0 of the present run
//	refund 1/0 restock      the order with number 0 of run 1
//	refund 0 stale=held     the ledger was asked before: it said held
//	restock -1, pause, resume, reset 5, set limit=3 (the rest stays), expire
//
// and happen at the second after the @, or when the row before did. Zero is
// scene's epoch; settings' times are counted from it too. An answer's words may
// be #number, run=, remaining=, units=, limit=, price=, deadline=, a status, and
// changed or unchanged; a row names those that matter to it.

const sceneEpoch = int64(1_700_000_000_000)

// story plays the rows one after the other on one product.
func story(t *testing.T, rows string) {
	t.Helper()
	s := newScene(t)
	for _, row := range sceneRows(rows) {
		if len(row) != 3 {
			t.Fatalf("row %q has %d columns, a story has 3", strings.Join(row, "|"), len(row))
		}
		s.expect(row[0], row[1], row[2])
	}
	s.replay()
}

// table plays each row on a product of its own.
func table(t *testing.T, rows string) {
	t.Helper()
	for _, row := range sceneRows(rows) {
		if len(row) != 4 {
			t.Fatalf("row %q has %d columns, a table has 4", strings.Join(row, "|"), len(row))
		}
		s := newScene(t)
		for command := range strings.SplitSeq(row[0], ";") {
			s.expect(strings.TrimSpace(command), "accepted", "")
		}
		s.row = strings.Join(row, " | ")
		s.expect(row[1], row[2], row[3])
		s.replay()
	}
}

func sceneRows(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		if strings.TrimSpace(line) == "" {
			continue
		}
		row := strings.Split(line, "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// scene is one product, the ledger of its orders and all its events.
type scene struct {
	t       *testing.T
	row     string
	product *engine.Product
	now     int64
	events  []engine.Event
	ledger  map[string]*engine.Order
}

func newScene(t *testing.T) *scene {
	return &scene{t: t, product: engine.NewProduct("p"), now: sceneEpoch, ledger: make(map[string]*engine.Order)}
}

func (s *scene) expect(command, outcome, counters string) {
	s.t.Helper()
	answer := s.do(command)
	got := describe(answer)
	words := strings.Fields(outcome)
	for i, word := range words {
		if i == 0 && got[0] != word || i > 0 && !slices.Contains(got[1:], word) {
			s.t.Errorf("%s\n%s: the answer is %q, want %q", s.row, command, strings.Join(got, " "), outcome)
		}
	}
	v := s.product.View()
	if now := fmt.Sprintf("%d %d %d", v.Remaining, v.Held, v.Sold); counters != "" && now != strings.Join(strings.Fields(counters), " ") {
		s.t.Errorf("%s\n%s: remaining, held and sold are %s, want %s", s.row, command, now, counters)
	}
	if v.Stock != v.Remaining+v.Held+v.Sold {
		s.t.Errorf("%s\n%s: the stock of %d is not %d + %d + %d", s.row, command, v.Stock, v.Remaining, v.Held, v.Sold)
	}
}

// do plays one command and keeps the ledger.
func (s *scene) do(line string) engine.Answer {
	s.t.Helper()
	words := strings.Fields(line)
	c := engine.AcquireCommand()
	var bare []string
	options := make(map[string]string)
	for _, word := range words[1:] {
		switch name, value, named := strings.Cut(word, "="); {
		case word[0] == '@':
			at, err := strconv.ParseFloat(word[1:], 64)
			s.must(err, line)
			s.now = sceneEpoch + int64(at*1000)
		case named:
			options[name] = value
		default:
			bare = append(bare, word)
		}
	}
	switch words[0] {
	case "expire":
		s.record(s.product.Expire(s.now, 1<<30, nil))
		return engine.Answer{Outcome: engine.Accepted}
	case "place":
		c.Op, c.Quantity = engine.OpPlace, s.number(bare[1], line)
		if bare[0] != "-" {
			c.SetBuyer([]byte(bare[0]))
		}
		c.SetKey([]byte(options["key"]))
	case "confirm", "cancel", "refund":
		c.Op = map[string]engine.Op{"confirm": engine.OpConfirm, "cancel": engine.OpCancel, "refund": engine.OpRefund}[words[0]]
		place := bare[0]
		if !strings.Contains(place, "/") {
			place = fmt.Sprintf("%d/%s", s.product.View().Run, place)
		}
		o := *s.ledger[place]
		if name := options["stale"]; name != "" {
			o.Status = statusNamed(name)
		}
		c.SetOrder(&o)
		c.Restock = slices.Contains(bare, "restock")
	case "create", "set":
		settings := *s.product.View().Settings
		for name, value := range options {
			n := s.number(value, line)
			if (name == "starts" || name == "ends") && n != 0 {
				n = sceneEpoch + n*1000
			}
			*map[string]*int64{
				"limit": &settings.LimitPerBuyer, "hold": &settings.HoldSeconds, "price": &settings.Price,
				"starts": &settings.StartsAt, "ends": &settings.EndsAt,
			}[name] = n
		}
		c.Op, c.Settings = engine.OpChange, &settings
		if words[0] == "create" {
			c.Op, c.Quantity = engine.OpCreate, s.number(bare[0], line)
		}
	case "restock":
		c.Op, c.Quantity = engine.OpRestock, s.number(bare[0], line)
	case "reset":
		c.Op, c.Quantity = engine.OpReset, s.number(bare[0], line)
	case "pause":
		c.Op = engine.OpPause
	case "resume":
		c.Op = engine.OpResume
	default:
		s.t.Fatalf("%s: no such command", line)
	}
	s.record(s.product.Decide(c, s.now, nil))
	return c.Answer
}

func (s *scene) record(events []engine.Event) {
	for _, ev := range events {
		place := fmt.Sprintf("%d/%d", ev.Run, ev.Number)
		switch {
		case ev.Kind == engine.OrderAccepted:
			s.ledger[place] = &engine.Order{
				Run: ev.Run, Number: ev.Number, Buyer: string(ev.Buyer), Key: string(ev.Key), Quantity: ev.Quantity,
				Price: ev.Price, Deadline: ev.Deadline, Status: ev.Status(),
			}
		case ev.Kind.Order():
			s.ledger[place].Status = ev.Status()
		}
	}
	s.events = append(s.events, events...)
}

// replay demands that the events alone come to the same state.
func (s *scene) replay() {
	s.t.Helper()
	again := engine.NewProduct("p")
	for i := range s.events {
		if err := again.Apply(&s.events[i]); err != nil {
			s.t.Fatalf("%s\nreplay: %v", s.row, err)
		}
	}
	if got, want := again.View(), s.product.View(); withoutVersion(got) != withoutVersion(want) || *got.Settings != *want.Settings {
		s.t.Errorf("%s\nthe replay gives %+v, the decisions gave %+v", s.row, *got, *want)
	}
}

func (s *scene) number(word, line string) int64 {
	n, err := strconv.ParseInt(word, 10, 64)
	s.must(err, line)
	return n
}

func (s *scene) must(err error, line string) {
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
}

// describe spells the answer as the tables do, its outcome first.
func describe(a engine.Answer) []string {
	words := []string{
		a.Outcome.String(), a.Status.String(), "unchanged",
		fmt.Sprintf("#%d", a.Number), fmt.Sprintf("run=%d", a.Run), fmt.Sprintf("remaining=%d", a.Remaining),
		fmt.Sprintf("units=%d", a.Units), fmt.Sprintf("limit=%d", a.Limit), fmt.Sprintf("price=%d", a.Price),
	}
	if a.Changed {
		words[2] = "changed"
	}
	if a.Deadline != 0 {
		words = append(words, fmt.Sprintf("deadline=%d", (a.Deadline-sceneEpoch)/1000))
	} else {
		words = append(words, "deadline=none")
	}
	return words
}

func statusNamed(name string) engine.Status {
	for status := engine.Held; status <= engine.Refunded; status++ {
		if status.String() == name {
			return status
		}
	}
	panic("no status is called " + name)
}
