package ingest

import (
	"bytes"

	"floodgate/engine"
)

// orderRequest is the body of a request to buy.
type orderRequest struct {
	buyer    []byte // empty: none named; a part of the body, or of nothing
	quantity int64
}

const mustBeID = "must be a string of 1 to 64 of A-Z a-z 0-9 . _ -"

// decodeOrder reads the body of a request to buy, without allocating. No body
// means one unit for nobody in particular. The body is changed by it, and the
// buyer is a part of it.
func decodeOrder(body []byte) (orderRequest, fault) {
	r := orderRequest{quantity: 1}
	if len(body) == 0 {
		return r, fault{}
	}
	if r, ok := decodePlainOrder(body); ok {
		return r, fault{}
	}
	o, f := openObject(body)
	if !f.none() {
		return r, f
	}
	sawBuyer, sawQuantity := false, false
	for first := true; ; first = false {
		name, v, ok, f := o.next(first)
		if !ok {
			return r, f
		}
		switch string(name) {
		case "buyer":
			if sawBuyer {
				return r, fault{"buyer", "is there twice"}
			}
			if sawBuyer = true; v.kind != isText || !validBuyer(v.bytes) {
				return r, fault{"buyer", mustBeID}
			}
			r.buyer = v.bytes
		case "quantity":
			if sawQuantity {
				return r, fault{"quantity", "is there twice"}
			}
			sawQuantity = true
			if r.quantity, f = v.integer("quantity", 1, engine.MaxQuantity); !f.none() {
				return r, f
			}
		default:
			return r, fault{fieldName(name), "is not a field of this request"}
		}
	}
}

// decodePlainOrder reads {"buyer":"…","quantity":N}, as most programs write it. It
// reports false for every other form and for every fault: those are read with
// care above.
func decodePlainOrder(body []byte) (r orderRequest, ok bool) {
	rest, ok := bytes.CutPrefix(body, []byte(`{"buyer":"`))
	if !ok {
		return r, false
	}
	n := 0
	for n < len(rest) && idBytes[rest[n]] {
		n++
	}
	r.buyer = rest[:n]
	if rest, ok = bytes.CutPrefix(rest[n:], []byte(`","quantity":`)); !ok || n == 0 || n > engine.MaxID {
		return r, false
	}
	for n = 0; n < len(rest) && '0' <= rest[n] && rest[n] <= '9' && r.quantity <= engine.MaxQuantity; n++ {
		r.quantity = 10*r.quantity + int64(rest[n]-'0')
	}
	ok = n > 0 && rest[0] != '0' && r.quantity <= engine.MaxQuantity && string(rest[n:]) == "}"
	return r, ok
}
