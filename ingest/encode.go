package ingest

import (
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"floodgate/engine"
)

// appendString appends s as a JSON string. Whatever a client sent comes out as
// valid UTF-8 without control characters.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[from:i]...), `\ufffd`...)
				from = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			dst = append(dst, s[from:i]...)
			from = i + 1
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
		}
		i++
	}
	return append(append(dst, s[from:]...), '"')
}

// appendTime appends a time in Unix milliseconds as a JSON string (RFC 3339, UTC).
// Formatting a date costs more than all else in an order, and the orders of one
// second share theirs.
func appendTime(dst []byte, ms int64) []byte {
	unix, milli := ms/1000, ms%1000
	if ms < 0 {
		return time.UnixMilli(ms).UTC().AppendFormat(dst, `"2006-01-02T15:04:05.000Z"`)
	}
	room := &seconds[unix%int64(len(seconds))]
	s := room.Load()
	if s == nil || s.unix != unix {
		s = &second{unix: unix}
		time.Unix(unix, 0).UTC().AppendFormat(s.text[:0], `"2006-01-02T15:04:05.`)
		room.Store(s)
	}
	dst = append(dst, s.text[:]...)
	return append(dst, byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10), 'Z', '"')
}

// appendDate appends the value of a Date header (RFC 9110, 5.6.7).
func appendDate(dst []byte, unix int64) []byte {
	d := date.Load()
	if d == nil || d.unix != unix {
		d = &httpDate{unix: unix, text: time.Unix(unix, 0).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
		date.Store(d)
	}
	return append(dst, d.text...)
}

type httpDate struct {
	unix int64
	text string
}

var date atomic.Pointer[httpDate]

// second is a second as text, up to its point.
type second struct {
	unix int64
	text [len(`"2006-01-02T15:04:05.`)]byte
}

// seconds are the last ones used: the present one and those of deadlines.
var seconds [16]atomic.Pointer[second]

// appendOrder appends an order in the given status. Asked with what the order
// was when it was accepted, it gives the same bytes every time: all it reads is
// in the record of the acceptance.
func appendOrder(dst []byte, o *engine.Order, status engine.Status, settled bool) []byte {
	dst = append(dst, `{"id":"`...)
	dst, _ = o.ID.AppendText(dst)
	dst = append(dst, `","product":`...)
	dst = appendString(dst, o.Product)
	dst = append(dst, `,"buyer":`...)
	dst = appendString(dst, o.Buyer)
	dst = append(dst, `,"quantity":`...)
	dst = strconv.AppendInt(dst, o.Quantity, 10)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, status.String()...)
	dst = append(dst, `","price_minor":`...)
	dst = strconv.AppendInt(dst, o.Price, 10)
	dst = append(dst, `,"currency":`...)
	dst = appendString(dst, o.Currency)
	dst = append(dst, `,"accepted_at":`...)
	dst = appendTime(dst, o.AcceptedAt)
	if status == engine.Held && o.Deadline != 0 {
		dst = append(dst, `,"expires_at":`...)
		dst = appendTime(dst, o.Deadline)
	}
	dst = append(dst, `,"settled":`...)
	dst = strconv.AppendBool(dst, settled)
	return append(dst, '}')
}

// AppendProduct appends the product JSON of one view: all its numbers are of
// the same moment.
func AppendProduct(dst []byte, v *engine.View, now int64) []byte {
	s := v.Settings
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, s.ID)
	dst = append(dst, `,"name":`...)
	dst = appendString(dst, s.Name)
	dst = strconv.AppendInt(appendMember(dst, "price_minor"), s.Price, 10)
	dst = appendString(appendMember(dst, "currency"), s.Currency)
	for _, n := range [...]struct {
		name  string
		value int64
	}{
		{"stock", v.Remaining + v.Held + v.Sold}, {"remaining", v.Remaining}, {"held", v.Held}, {"sold", v.Sold},
		{"limit_per_buyer", s.LimitPerBuyer}, {"hold_seconds", s.HoldSeconds},
	} {
		dst = strconv.AppendInt(appendMember(dst, n.name), n.value, 10)
	}
	if s.StartsAt != 0 {
		dst = appendTime(appendMember(dst, "starts_at"), s.StartsAt)
	}
	if s.EndsAt != 0 {
		dst = appendTime(appendMember(dst, "ends_at"), s.EndsAt)
	}
	dst = appendString(appendMember(dst, "state"), v.State(now).String())
	dst = strconv.AppendUint(appendMember(dst, "run"), uint64(v.Run), 10)
	return append(dst, '}')
}
