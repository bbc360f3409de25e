package ingest_test

import (
	"errors"
	"fmt"
	"testing"

	"floodgate/engine"
	"floodgate/ingest"
)

func TestStatus_every_outcome_has_its_problem(t *testing.T) {
	want := map[engine.Outcome]struct {
		problem string
		status  int
	}{
		engine.Accepted:       {"none", 200},
		engine.Replayed:       {"none", 200},
		engine.KeyMismatch:    {"idempotency-mismatch", 422},
		engine.NotStarted:     {"sale-not-started", 409},
		engine.Ended:          {"sale-ended", 410},
		engine.Paused:         {"product-paused", 503},
		engine.OverLimit:      {"buyer-limit", 409},
		engine.SoldOut:        {"sold-out", 409},
		engine.NotHeld:        {"order-not-held", 409},
		engine.HoldExpired:    {"hold-expired", 410},
		engine.OrderFinal:     {"order-final", 409},
		engine.NotConfirmed:   {"order-not-confirmed", 409},
		engine.StockCommitted: {"stock-committed", 409},
		engine.StockExceeded:  {"stock-exceeded", 409},
		engine.ProductExists:  {"product-exists", 409},
	}
	for _, o := range engine.Outcomes() {
		w, ok := want[o]
		if !ok {
			t.Errorf("outcome %d (%s) is in no row of this table", o, o)
			continue
		}
		problem, status := ingest.ProblemOfOutcome(o)
		if problem != w.problem || status != w.status {
			t.Errorf("%s is answered with %s %d, want %s %d", o, problem, status, w.problem, w.status)
		}
		if problem != "none" && problem != o.String() {
			t.Errorf("%s has a problem of another name: %s", o, problem)
		}
	}
}

func TestStatus_503_says_that_nothing_was_decided_and_504_that_it_is_unknown(t *testing.T) {
	for _, c := range []struct {
		err     error
		problem string
		status  int
	}{
		{engine.ErrOverloaded, "overloaded", 503},
		{engine.ErrStalled, "unavailable", 503},
		{engine.ErrClosed, "unavailable", 503},
		{engine.ErrTooManyProducts, "too-many-products", 409},
		{engine.ErrUnknown, "outcome-unknown", 504},
		{engine.ErrJournalFailed, "outcome-unknown", 504},
		{errors.New("nobody foresaw this"), "outcome-unknown", 504},
	} {
		for _, err := range []error{c.err, fmt.Errorf("while buying: %w", c.err)} {
			if problem, status := ingest.ProblemOfError(err); problem != c.problem || status != c.status {
				t.Errorf("%v is answered with %s %d, want %s %d", err, problem, status, c.problem, c.status)
			}
		}
	}
}

func TestStatus_every_problem_is_counted_by_its_status(t *testing.T) {
	for name, status := range ingest.AllProblems() {
		if !ingest.CountsStatus(status) {
			t.Errorf("requests refused as %s are not counted by their status %d", name, status)
		}
	}
}
