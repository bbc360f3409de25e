//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	adminToken = "bench-admin-token-0123456789"
	productID  = "sale"
	placePath  = "/v1/products/" + productID + "/orders"
)

// admin asks the node what an operator would.
var admin = http.Client{Timeout: 10 * time.Second}

// product is the part of GET /v1/products/{id} that the books are made of.
type product struct {
	Stock     int64  `json:"stock"`
	Remaining int64  `json:"remaining"`
	Held      int64  `json:"held"`
	Sold      int64  `json:"sold"`
	State     string `json:"state"`
}

func call(ctx context.Context, method, url string, body, into any) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := admin.Do(req)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, got)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(got, into)
}

// nodeReady reports whether the node at addr may sell.
func nodeReady(ctx context.Context, addr string) error {
	return call(ctx, http.MethodGet, "http://"+addr+"/readyz", nil, nil)
}

// bareReady reports whether the bare server answers.
func bareReady(ctx context.Context, addr string) error {
	return call(ctx, http.MethodPost, "http://"+addr+placePath, nil, nil)
}

func createProduct(ctx context.Context, addr string, stock, limit int64) error {
	return call(ctx, http.MethodPut, "http://"+addr+"/v1/products/"+productID, map[string]any{
		"name": "Sale", "price_minor": 1999, "currency": "EUR", "stock": stock, "limit_per_buyer": limit,
	}, nil)
}

// resetProduct starts a new run of the sale.
func resetProduct(ctx context.Context, addr string, stock int64) error {
	return call(ctx, http.MethodPost, "http://"+addr+"/v1/products/"+productID+"/reset", map[string]any{"stock": stock}, nil)
}

// buyAll buys the whole stock in one order.
func buyAll(ctx context.Context, addr string, stock int64) error {
	return call(ctx, http.MethodPost, "http://"+addr+placePath, map[string]any{"buyer": "first", "quantity": stock}, nil)
}

// settledProduct returns the product once nothing changes any more: requests that
// wrk gave up at its end are still answered.
func settledProduct(ctx context.Context, addr string) (product, error) {
	var before product
	for range 100 {
		var now product
		if err := call(ctx, http.MethodGet, "http://"+addr+"/v1/products/"+productID, nil, &now); err != nil {
			return now, err
		}
		if now == before {
			return now, nil
		}
		before = now
		time.Sleep(50 * time.Millisecond)
	}
	return before, errors.New("the product does not come to rest")
}

// ledger is what the client side knows of a sale.
type ledger struct {
	stock    int64
	accepted int64 // answers with 201 that came, or units bought while preparing
	cut      int64 // requests that may have been in flight when a run ended
}

// check holds the server's counters against each other and against the client's.
// What a run cut off may have been sold without its answer counted; nothing else
// may differ.
func (l *ledger) check(p product) error {
	var faults []string
	if p.Stock != p.Remaining+p.Held+p.Sold {
		faults = append(faults, "stock is not remaining + held + sold")
	}
	if p.Remaining < 0 || p.Held < 0 || p.Sold < 0 {
		faults = append(faults, "a counter is negative")
	}
	if p.Stock != l.stock {
		faults = append(faults, fmt.Sprintf("the stock was %d", l.stock))
	}
	if given := p.Held + p.Sold; given < l.accepted || given > l.accepted+l.cut {
		faults = append(faults, fmt.Sprintf("%d orders were acknowledged and at most %d more were in flight", l.accepted, l.cut))
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("the books do not balance: stock %d, remaining %d, held %d, sold %d: %s",
		p.Stock, p.Remaining, p.Held, p.Sold, strings.Join(faults, "; "))
}
