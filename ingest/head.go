package ingest

import "bytes"

// head is what the handlers need of a request's headers, taken in one pass over
// the bytes as they came. The pass replaces one search per header, and it sees
// what the parser hides: two of a header that may stand once, a line folded onto
// the one before (RFC 9112, 5.2), and the two framings of a smuggled request
// (RFC 9112, 6.1). The slices are valid until the handler returns.
type head struct {
	authorization []byte
	key           []byte // Idempotency-Key
	contentType   []byte

	authorizations, keys, contentTypes uint8 // how many of each, at most 2
	contentLength, transferEncoding    bool
	encoded                            bool // Content-Encoding other than identity
	close                              bool // Connection asks to end it, in any case and among other members
	malformed                          bool // a folded line, or one that ends without CR
}

func readHead(raw []byte) (h head) {
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			end = len(raw)
		}
		line := raw[:end]
		if end == len(raw) {
			raw = nil
		} else {
			raw = raw[end+1:]
		}
		if len(line) == 0 || line[len(line)-1] != '\r' {
			h.malformed = true
			return h
		}
		line = line[:len(line)-1]
		if len(line) == 0 {
			return h // the blank line at the end
		}
		switch line[0] {
		case ' ', '\t':
			h.malformed = true
			return h
		case 'a', 'A':
			if value, ok := header(line, "authorization"); ok {
				h.authorization = value
				more(&h.authorizations)
			}
		case 'i', 'I':
			if value, ok := header(line, "idempotency-key"); ok {
				h.key = value
				more(&h.keys)
			}
		case 't', 'T':
			if _, ok := header(line, "transfer-encoding"); ok {
				h.transferEncoding = true
			}
		case 'c', 'C':
			if value, ok := header(line, "content-type"); ok {
				h.contentType = value
				more(&h.contentTypes)
			} else if _, ok := header(line, "content-length"); ok {
				h.contentLength = true
			} else if value, ok := header(line, "content-encoding"); ok {
				h.encoded = !equalFold(value, "identity")
			} else if value, ok := header(line, "connection"); ok {
				h.close = h.close || hasMember(value, "close")
			}
		}
	}
	return h
}

func more(count *uint8) {
	if *count < 2 {
		*count++
	}
}

// header returns the line's value where its name, in any case, is the given one.
func header(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !equalFold(line[:len(name)], name) {
		return nil, false
	}
	value := line[len(name)+1:]
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	return value, true
}

// hasMember reports whether a header that is a list (RFC 9110, 5.6.1) has that
// member, in any case; lower is lower case.
func hasMember(list []byte, lower string) bool {
	for len(list) > 0 {
		var member []byte
		member, list, _ = bytes.Cut(list, []byte(","))
		if equalFold(bytes.Trim(member, " \t"), lower) {
			return true
		}
	}
	return false
}

// equalFold compares ASCII letters without regard to case; lower is lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isJSON reports whether the media type is application/json; parameters are
// allowed, they change nothing.
func isJSON(contentType []byte) bool {
	const want = "application/json"
	if len(contentType) < len(want) || !equalFold(contentType[:len(want)], want) {
		return false
	}
	rest := bytes.TrimLeft(contentType[len(want):], " \t")
	return len(rest) == 0 || rest[0] == ';'
}
