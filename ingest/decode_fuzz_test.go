package ingest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"floodgate/ingest"
)

// FuzzDecodeOrder holds the hand-written decoder against encoding/json: what it
// accepts means the same there, and what is well formed there it accepts.
func FuzzDecodeOrder(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"buyer":"u-1","quantity":1}`, `{"quantity":1e3}`, `{"buyer":"\u0041"}`, `{"quantity":1,"quantity":2}`,
		`{"b\u0075yer":"x" , "quantity" : 1000000 }`, ` {"quantity":-0}`, `[]`, `{"a":[{}]}`, "\ufeff{}", `{"buyer":"\ud800"}`, `{}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		wantBuyer, wantQuantity, want := reference(body)
		buyer, quantity, _, reason := ingest.DecodeOrder(bytes.Clone(body))
		if got := reason == ""; got != want {
			t.Fatalf("%q: accepted %v, want %v (%s)", body, got, want, reason)
		}
		if want && (string(buyer) != wantBuyer || quantity != wantQuantity) {
			t.Fatalf("%q: buyer %q, quantity %d, want %q, %d", body, buyer, quantity, wantBuyer, wantQuantity)
		}
	})
}

var (
	idForm      = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	integerForm = regexp.MustCompile(`^[1-9][0-9]*$`)
)

// reference is the same rule written with encoding/json.
func reference(body []byte) (buyer string, quantity int64, ok bool) {
	quantity = 1
	if len(body) == 0 {
		return "", 1, true
	}
	if !utf8.Valid(body) {
		return "", 0, false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return "", 0, false
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, isName := token.(string)
		if err != nil || !isName || seen[name] {
			return "", 0, false
		}
		seen[name] = true
		value, err := d.Token()
		if err != nil {
			return "", 0, false
		}
		switch name {
		case "buyer":
			buyer, ok = value.(string)
			if !ok || !idForm.MatchString(buyer) || strings.Contains(buyer, "\n") {
				return "", 0, false
			}
		case "quantity":
			number, ok := value.(json.Number)
			if !ok || !integerForm.MatchString(string(number)) {
				return "", 0, false
			}
			if quantity, err = strconv.ParseInt(string(number), 10, 64); err != nil || quantity > 1_000_000 {
				return "", 0, false
			}
		default:
			return "", 0, false
		}
	}
	if _, err := d.Token(); err != nil {
		return "", 0, false
	}
	if _, err := d.Token(); err != io.EOF {
		return "", 0, false
	}
	// The stream of tokens is more forgiving than the grammar about commas.
	return buyer, quantity, json.Valid(body)
}
