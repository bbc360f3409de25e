//go:build linux

package main

import "testing"

// Ensure the books can fail: a benchmark that cannot find an oversell proves nothing.
func TestLedgerCheck(t *testing.T) {
	for _, c := range []struct {
		name     string
		ledger   ledger
		product  product
		balanced bool
	}{
		{"OK", ledger{stock: 10, accepted: 4}, product{Stock: 10, Remaining: 6, Sold: 4}, true},
		{"OKHeld", ledger{stock: 10, accepted: 4}, product{Stock: 10, Remaining: 6, Held: 3, Sold: 1}, true},
		{"OKInFlight", ledger{stock: 10, accepted: 4, cut: 2}, product{Stock: 10, Remaining: 4, Sold: 6}, true},
		{"AcknowledgedAndForgotten", ledger{stock: 10, accepted: 5, cut: 2}, product{Stock: 10, Remaining: 6, Sold: 4}, false},
		{"SoldToNobody", ledger{stock: 10, accepted: 4, cut: 1}, product{Stock: 10, Remaining: 4, Sold: 6}, false},
		{"SumIsOff", ledger{stock: 10, accepted: 4}, product{Stock: 10, Remaining: 7, Sold: 4}, false},
		{"Negative", ledger{stock: 10, accepted: 11}, product{Stock: 10, Remaining: -1, Sold: 11}, false},
		{"OtherStock", ledger{stock: 10, accepted: 4}, product{Stock: 11, Remaining: 7, Sold: 4}, false},
	} {
		if err := c.ledger.check(c.product); (err == nil) != c.balanced {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Ensure a scenario does not pass with answers of another one.
func TestScenarioJudge(t *testing.T) {
	answered := func(requests, refused, timeouts int64) measurement {
		return measurement{answers: answers{Requests: requests, Refused: refused, Timeout: timeouts}}
	}
	for _, c := range []struct {
		name string
		wins outcome
		got  measurement
		fine bool
	}{
		{"AllOK", all, answered(100, 0, 0), true},
		{"AllRefusedOne", all, answered(100, 1, 0), false},
		{"AllTimeout", all, answered(100, 0, 1), false},
		{"NoneOK", none, answered(100, 100, 0), true},
		{"NoneAcceptedOne", none, answered(100, 99, 0), false},
		{"SomeOK", some, answered(100, 93, 0), true},
		{"SomeOneTooMany", some, answered(100, 92, 0), false},
		{"SomeOneTooFew", some, answered(100, 94, 0), false},
	} {
		sc := scenario{wins: c.wins, stock: 7}
		if err := sc.judge(c.got, 1); (err == nil) != c.fine {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Ensure the ratio is of pairs, so that a slow minute of the machine cancels out.
func TestRatio(t *testing.T) {
	r := result{}
	for _, pair := range [][2]float64{{4, 8}, {40, 60}, {5, 5}} {
		r.Bare = append(r.Bare, measurement{CPUPerRequest: pair[0]})
		r.Ours = append(r.Ours, measurement{CPUPerRequest: pair[1]})
	}
	if got := r.ratio(); got != 1.5 {
		t.Errorf("ratio %v, want the median 1.5", got)
	}
	if got := medianOf([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median %v, want 2.5", got)
	}
}
