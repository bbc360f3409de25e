package ingest_test

import (
	"strings"
	"testing"

	"floodgate/ingest"
)

func TestDecodeOrder(t *testing.T) {
	long := strings.Repeat("b", 64)
	for _, c := range []struct {
		body     string
		buyer    string
		quantity int64
		field    string // empty: accepted
	}{
		{``, "", 1, ""},
		{`{}`, "", 1, ""},
		{" \t\r\n{ \t\r\n} \t\r\n", "", 1, ""},
		{`{"quantity":1}`, "", 1, ""},
		{`{"quantity":1000000}`, "", 1000000, ""},
		{`{"buyer":"u-1"}`, "u-1", 1, ""},
		{`{"buyer":"u-1","quantity":3}`, "u-1", 3, ""},
		{`{ "quantity" : 3 , "buyer" : "A.b_c-9" }`, "A.b_c-9", 3, ""},
		{`{"buyer":"` + long + `"}`, long, 1, ""},
		{`{"buyer":"\u0075-1"}`, "u-1", 1, ""},
		{`{"b\u0075yer":"u-1","quantity":2}`, "u-1", 2, ""},

		// S11: quantities.
		{`{"quantity":0}`, "", 0, "quantity"},
		{`{"quantity":-0}`, "", 0, "quantity"},
		{`{"quantity":-1}`, "", 0, "quantity"},
		{`{"quantity":1.5}`, "", 0, "quantity"},
		{`{"quantity":1.0}`, "", 0, "quantity"},
		{`{"quantity":1e3}`, "", 0, "quantity"},
		{`{"quantity":1E0}`, "", 0, "quantity"},
		{`{"quantity":"1"}`, "", 0, "quantity"},
		{`{"quantity":true}`, "", 0, "quantity"},
		{`{"quantity":null}`, "", 0, "quantity"},
		{`{"quantity":[1]}`, "", 0, "quantity"},
		{`{"quantity":{}}`, "", 0, "quantity"},
		{`{"quantity":1000001}`, "", 0, "quantity"},
		{`{"quantity":2147483648}`, "", 0, "quantity"},
		{`{"quantity":9223372036854775807}`, "", 0, "quantity"},
		{`{"quantity":9223372036854775808}`, "", 0, "quantity"},
		{`{"quantity":18446744073709551617}`, "", 0, "quantity"},
		{`{"quantity":1000000000000000000000000000000}`, "", 0, "quantity"},
		{`{"quantity":01}`, "", 0, "quantity"},
		{`{"quantity":11` + "x}", "", 0, "body"},
		{`{"quantity":+1}`, "", 0, "quantity"},
		{`{"quantity":.5}`, "", 0, "quantity"},
		{`{"quantity":1.}`, "", 0, "quantity"},
		{`{"quantity":1e}`, "", 0, "quantity"},
		{`{"quantity":-}`, "", 0, "quantity"},
		{`{"quantity":0x1}`, "", 0, "quantity"},
		{`{"quantity":NaN}`, "", 0, "quantity"},
		{`{"quantity":Infinity}`, "", 0, "quantity"},
		{`{"quantity":}`, "", 0, "quantity"},
		{`{"quantity":nul}`, "", 0, "quantity"},
		{`{"quantity":1,"quantity":1}`, "", 0, "quantity"},
		{`{"quantity":1,"qu\u0061ntity":1}`, "", 0, "quantity"},

		// Buyers.
		{`{"buyer":""}`, "", 0, "buyer"},
		{`{"buyer":"` + long + `b"}`, "", 0, "buyer"},
		{`{"buyer":"a b"}`, "", 0, "buyer"},
		{`{"buyer":"a/b"}`, "", 0, "buyer"},
		{`{"buyer":"ü"}`, "", 0, "buyer"},
		{`{"buyer":"\u0000"}`, "", 0, "buyer"},
		{`{"buyer":"\u001f"}`, "", 0, "buyer"},
		{`{"buyer":"\ud800"}`, "", 0, "buyer"},
		{`{"buyer":"\ud83d\ude00"}`, "", 0, "buyer"},
		{`{"buyer":"\x"}`, "", 0, "buyer"},
		{`{"buyer":"\u00g0"}`, "", 0, "buyer"},
		{`{"buyer":"\u00`, "", 0, "buyer"},
		{`{"buyer":"u`, "", 0, "buyer"},
		{"{\"buyer\":\"a\nb\"}", "", 0, "buyer"},
		{`{"buyer":7}`, "", 0, "buyer"},
		{`{"buyer":null}`, "", 0, "buyer"},
		{`{"buyer":["u-1"]}`, "", 0, "buyer"},
		{`{"buyer":"a","buyer":"a"}`, "", 0, "buyer"},
		{`{"buyer":'a'}`, "", 0, "buyer"},

		// S10: fields that are not the buyer's to set, and other names.
		{`{"price_minor":1}`, "", 0, "price_minor"},
		{`{"buyer_id":"x"}`, "", 0, "buyer_id"},
		{`{"state":"open"}`, "", 0, "state"},
		{`{"role":"admin"}`, "", 0, "role"},
		{`{"Quantity":1}`, "", 0, "Quantity"},
		{`{"BUYER":"a"}`, "", 0, "BUYER"},
		{`{"":1}`, "", 0, ""},
		{`{"` + strings.Repeat("x", 100) + `":1}`, "", 0, strings.Repeat("x", 64) + "..."},

		// S12: what is not one JSON object.
		{`null`, "", 0, "body"},
		{`[]`, "", 0, "body"},
		{`"x"`, "", 0, "body"},
		{`1`, "", 0, "body"},
		{` `, "", 0, "body"},
		{`{`, "", 0, "body"},
		{`{"a`, "", 0, "body"},
		{`{"quantity"`, "", 0, "body"},
		{`{"quantity" 1}`, "", 0, "body"},
		{`{"quantity":1`, "", 0, "body"},
		{`{"quantity":1,}`, "", 0, "body"},
		{`{,}`, "", 0, "body"},
		{`{quantity:1}`, "", 0, "body"},
		{`{"quantity":1 "buyer":"a"}`, "", 0, "body"},
		{`{}{}`, "", 0, "body"},
		{`{} x`, "", 0, "body"},
		{`{"quantity":1}]`, "", 0, "body"},
		{"\ufeff{}", "", 0, "body"},
		{"{\"buyer\":\"\xff\"}", "", 0, "body"},
		{"{\"\xc0\xaf\":1}", "", 0, "body"},
		{"{}\x00", "", 0, "body"},
		{strings.Repeat(`{"buyer":`, 10_000), "", 0, "buyer"},
		{strings.Repeat(`[`, 10_000), "", 0, "body"},
		{`{"x":` + strings.Repeat(`[`, 10_000) + `}`, "", 0, "x"},
	} {
		name := c.body
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			buyer, quantity, field, reason := ingest.DecodeOrder([]byte(c.body))
			if c.quantity == 0 {
				if reason == "" || field != c.field {
					t.Errorf("field %q, reason %q; want field %q", field, reason, c.field)
				}
				return
			}
			if reason != "" || string(buyer) != c.buyer || quantity != c.quantity {
				t.Errorf("buyer %q, quantity %d, refused for %s %s", buyer, quantity, field, reason)
			}
		})
	}
}

func TestAppendString_writes_only_valid_JSON(t *testing.T) {
	for in, want := range map[string]string{
		"":                `""`,
		"plain":           `"plain"`,
		"a\"b\\c":         `"a\"b\\c"`,
		"\r\n\t\x00\x1b":  `"\r\n\t\u0000\u001b"`,
		"\x7f":            `"\u007f"`,
		"Lämpchen 🎉":      `"Lämpchen 🎉"`,
		"a\xffb\xc3":      `"a\ufffdb\ufffd"`,
		"\ufffd stays":    "\"\ufffd stays\"",
		"\xed\xa0\x80end": `"\ufffd\ufffd\ufffdend"`,
	} {
		if got := ingest.AppendString(in); got != want {
			t.Errorf("%q is written %s, want %s", in, got, want)
		}
	}
}
