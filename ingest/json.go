package ingest

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// fault is one thing wrong with a request: which field or header, and what a
// client must do about it. The zero fault is none.
type fault struct{ field, reason string }

func (f fault) none() bool     { return f.reason == "" }
func (f fault) String() string { return f.field + " " + f.reason }

// kind is what a JSON value is.
type kind uint8

const (
	isText kind = 1 + iota
	isNumber
	isBool
	isNull
	isNested // an array or an object; no field takes one, so it is not read
)

type value struct {
	kind  kind
	bytes []byte // a text's characters, or a number as it is written
	truth bool
}

// object reads one flat JSON object (RFC 8259) from the bytes of a body, field
// by field, without allocating. It is stricter than encoding/json: names match
// exactly, UTF-8 must be valid, and nothing may follow. It writes into the data:
// a text with escapes is decoded where it stands, for it only gets shorter.
type object struct {
	data []byte
	at   int
}

const bodyField = "body"

// openObject begins to read.
func openObject(data []byte) (object, fault) {
	o := object{data: data}
	if !utf8.Valid(data) {
		return o, fault{bodyField, "is not valid UTF-8"}
	}
	if len(data) >= 3 && data[0] == 0xef && data[1] == 0xbb && data[2] == 0xbf {
		return o, fault{bodyField, "begins with a byte order mark; JSON has none"}
	}
	o.space()
	if !o.take('{') {
		return o, fault{bodyField, "must be a JSON object"}
	}
	return o, fault{}
}

// next reads the next field. False means that the object is complete and
// nothing follows it. A fault in the value names the field; after a fault, or a
// nested value, there is no way on.
func (o *object) next(first bool) (name []byte, v value, ok bool, f fault) {
	o.space()
	if o.take('}') {
		o.space()
		if o.at < len(o.data) {
			return nil, v, false, fault{bodyField, "has something after the JSON object"}
		}
		return nil, v, false, fault{}
	}
	if !first {
		if !o.take(',') {
			return nil, v, false, fault{bodyField, "is not valid JSON: a comma or a closing brace is missing"}
		}
		o.space()
	}
	name, good := o.text()
	if !good {
		return nil, v, false, fault{bodyField, "is not valid JSON: the name of a field is expected"}
	}
	o.space()
	if !o.take(':') {
		return nil, v, false, fault{bodyField, "is not valid JSON: a colon is missing after the name of a field"}
	}
	o.space()
	if v, good = o.value(); !good {
		return nil, v, false, fault{fieldName(name), "is not a valid JSON value"}
	}
	return name, v, true, fault{}
}

// fieldName returns a name that a client sent, short enough to be told back.
func fieldName(name []byte) string {
	if len(name) > 64 {
		return string(name[:64]) + "..."
	}
	return string(name)
}

func (o *object) space() {
	for o.at < len(o.data) {
		switch o.data[o.at] {
		case ' ', '\t', '\n', '\r':
			o.at++
		default:
			return
		}
	}
}

func (o *object) take(c byte) bool {
	if o.at < len(o.data) && o.data[o.at] == c {
		o.at++
		return true
	}
	return false
}

func (o *object) word(w string) bool {
	if len(o.data)-o.at >= len(w) && string(o.data[o.at:o.at+len(w)]) == w {
		o.at += len(w)
		return true
	}
	return false
}

func (o *object) value() (v value, ok bool) {
	if o.at == len(o.data) {
		return v, false
	}
	switch c := o.data[o.at]; {
	case c == '"':
		b, ok := o.text()
		return value{kind: isText, bytes: b}, ok
	case c == '-' || '0' <= c && c <= '9':
		b, ok := o.number()
		return value{kind: isNumber, bytes: b}, ok
	case c == 't':
		return value{kind: isBool, truth: true}, o.word("true")
	case c == 'f':
		return value{kind: isBool}, o.word("false")
	case c == 'n':
		return value{kind: isNull}, o.word("null")
	case c == '{' || c == '[':
		return value{kind: isNested}, true
	}
	return v, false
}

// number reads a number as RFC 8259, 6 spells it.
func (o *object) number() ([]byte, bool) {
	begin := o.at
	o.take('-')
	if !o.take('0') && !o.digits() {
		return nil, false
	}
	if o.take('.') && !o.digits() {
		return nil, false
	}
	if o.take('e') || o.take('E') {
		if !o.take('+') {
			o.take('-')
		}
		if !o.digits() {
			return nil, false
		}
	}
	return o.data[begin:o.at], true
}

func (o *object) digits() bool {
	begin := o.at
	for o.at < len(o.data) && '0' <= o.data[o.at] && o.data[o.at] <= '9' {
		o.at++
	}
	return o.at > begin
}

// text reads a string. Without escapes it is a part of the data.
func (o *object) text() ([]byte, bool) {
	if !o.take('"') {
		return nil, false
	}
	begin := o.at
	for o.at < len(o.data) {
		switch c := o.data[o.at]; {
		case c == '"':
			o.at++
			return o.data[begin : o.at-1], true
		case c == '\\':
			return o.escaped(begin)
		case c < ' ':
			return nil, false
		}
		o.at++
	}
	return nil, false
}

// escaped goes on with a string from its first backslash, decoding in place.
func (o *object) escaped(begin int) ([]byte, bool) {
	to := o.at
	for o.at < len(o.data) {
		c := o.data[o.at]
		o.at++
		switch {
		case c == '"':
			return o.data[begin:to], true
		case c < ' ':
			return nil, false
		case c != '\\':
			o.data[to] = c
			to++
			continue
		}
		if o.at == len(o.data) {
			return nil, false
		}
		c = o.data[o.at]
		o.at++
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := o.unicode()
			if !ok {
				return nil, false
			}
			to += utf8.EncodeRune(o.data[to:], r)
			continue
		default:
			return nil, false
		}
		o.data[to] = c
		to++
	}
	return nil, false
}

// unicode reads what follows \u, a second half of a pair included. Half a pair
// alone is no character and is refused.
func (o *object) unicode() (rune, bool) {
	r, ok := o.hex()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if !o.word(`\u`) {
		return 0, false
	}
	low, ok := o.hex()
	if !ok {
		return 0, false
	}
	r = utf16.DecodeRune(r, low)
	return r, r != utf8.RuneError
}

func (o *object) hex() (r rune, ok bool) {
	if len(o.data)-o.at < 4 {
		return 0, false
	}
	for _, c := range o.data[o.at : o.at+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	o.at += 4
	return r, true
}

// integer returns the value as a whole number within bounds. Only the plain
// form is one: 1e3 and 1.0 are refused, for clients disagree about them.
func (v value) integer(field string, low, high int64) (int64, fault) {
	if v.kind != isNumber {
		return 0, mustBeInteger(field, low, high)
	}
	digits := v.bytes
	negative := digits[0] == '-'
	if negative {
		digits = digits[1:]
	}
	n := int64(0)
	for _, c := range digits {
		if c < '0' || c > '9' || n > 1<<60/10 {
			return 0, mustBeInteger(field, low, high)
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	if n < low || n > high {
		return 0, mustBeInteger(field, low, high)
	}
	return n, fault{}
}

func mustBeInteger(field string, low, high int64) fault {
	return fault{field, "must be an integer from " + strconv.FormatInt(low, 10) + " to " + strconv.FormatInt(high, 10)}
}
