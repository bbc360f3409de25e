package engine_test

import (
	"regexp"
	"testing"

	"floodgate/engine"
)

// The numbers are on disk or in other programs: they may be added to, never
// changed. So this table is written out and not computed.
func TestOutcomesStatusesAndKindsAreNumberedForGood(t *testing.T) {
	for i, o := range []engine.Outcome{
		engine.Accepted, engine.Replayed, engine.KeyMismatch, engine.NotStarted, engine.Ended, engine.Paused,
		engine.OverLimit, engine.SoldOut, engine.NotHeld, engine.HoldExpired, engine.OrderFinal, engine.NotConfirmed,
		engine.StockCommitted, engine.StockExceeded, engine.ProductExists,
	} {
		if int(o) != i+1 {
			t.Errorf("outcome %v is %d, it was %d", o, o, i+1)
		}
	}
	for i, s := range []engine.Status{engine.Held, engine.Confirmed, engine.Cancelled, engine.Expired, engine.Refunded} {
		if int(s) != i+1 {
			t.Errorf("status %v is %d, it was %d", s, s, i+1)
		}
	}
	for kind, want := range map[engine.Kind]int{
		engine.ProductChanged: 1, engine.StockChanged: 2, engine.SalePaused: 3, engine.SaleResumed: 4,
		engine.RunStarted: 5, engine.SaleOpened: 6, engine.SaleClosed: 7,
		engine.OrderAccepted: 16, engine.OrderConfirmed: 17, engine.OrderCancelled: 18, engine.OrderExpired: 19, engine.OrderRefunded: 20,
	} {
		if int(kind) != want {
			t.Errorf("a kind is %d, it was %d", kind, want)
		}
		if got := kind.Order(); got != (want >= 16) {
			t.Errorf("kind %d: Order is %v", kind, got)
		}
	}
}

func TestEveryOutcomeHasANameOfItsOwn(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := make(map[string]engine.Outcome)
	all := engine.Outcomes()
	for i, o := range all {
		if int(o) != i+1 {
			t.Errorf("Outcomes skips from %d to %d", i, o)
		}
		s := o.String()
		if other, taken := seen[s]; taken || s == "unknown" || !name.MatchString(s) {
			t.Errorf("outcome %d is called %q, as %d is", o, s, other)
		}
		seen[s] = o
	}
	if len(all) != len(engine.Stats{}.Outcomes)-1 {
		t.Errorf("%d outcomes, Stats counts %d", len(all), len(engine.Stats{}.Outcomes)-1)
	}
	for _, none := range []engine.Outcome{0, all[len(all)-1] + 1, 255} {
		if none.String() != "unknown" {
			t.Errorf("outcome %d, which there is not, is called %q", none, none)
		}
	}
}

func TestEveryStatusAndStateHasANameOfItsOwn(t *testing.T) {
	for i, want := range []string{"unknown", "held", "confirmed", "cancelled", "expired", "refunded", "unknown"} {
		if got := engine.Status(i).String(); got != want {
			t.Errorf("status %d is called %q, want %q", i, got, want)
		}
	}
	for state, want := range map[engine.State]string{
		engine.Open: "open", engine.Scheduled: "scheduled", engine.OnPause: "paused", engine.Exhausted: "sold-out", engine.Over: "ended",
	} {
		if got := state.String(); got != want {
			t.Errorf("state %d is called %q, want %q", state, got, want)
		}
	}
}

func TestEveryOrderEventLeavesAStatus(t *testing.T) {
	for kind, want := range map[engine.Kind]engine.Status{
		engine.OrderAccepted: engine.Confirmed, engine.OrderConfirmed: engine.Confirmed, engine.OrderCancelled: engine.Cancelled,
		engine.OrderExpired: engine.Expired, engine.OrderRefunded: engine.Refunded, engine.StockChanged: 0,
	} {
		if got := (&engine.Event{Kind: kind}).Status(); got != want {
			t.Errorf("kind %d leaves %v, want %v", kind, got, want)
		}
	}
	if got := (&engine.Event{Kind: engine.OrderAccepted, Deadline: 1}).Status(); got != engine.Held {
		t.Errorf("accepted with a deadline leaves %v", got)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var hundred []int64
	for i := range int64(100) {
		hundred = append(hundred, i+1)
	}
	for _, row := range []struct {
		name   string
		values []int64
		q      float64
		want   int64
	}{
		{"of nothing", nil, 0.5, 0},
		{"of one value", []int64{5}, 0.5, 8},
		{"of one value, the last", []int64{5}, 1, 8},
		{"of zero", []int64{0}, 0.5, 1},
		{"of less than zero", []int64{-5}, 0.5, 1},
		{"the median of a hundred", hundred, 0.5, 64},
		{"the last of a hundred", hundred, 0.99, 128},
		{"of more than it counts", []int64{1 << 62}, 0.5, 1 << 47},
	} {
		h := engine.Observe(row.values...)
		if got := h.Quantile(row.q); got != row.want {
			t.Errorf("the quantile %s is %d, want %d", row.name, got, row.want)
		}
		var sum int64
		for _, v := range row.values {
			sum += v
		}
		if h.Count != uint64(len(row.values)) || h.Sum != sum {
			t.Errorf("%s: counted %d with sum %d", row.name, h.Count, h.Sum)
		}
	}
}
