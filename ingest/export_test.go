package ingest

import (
	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// What the tests need to see from inside.

func DecodeOrder(body []byte) (buyer []byte, quantity int64, field, reason string) {
	r, f := decodeOrder(body)
	return r.buyer, r.quantity, f.field, f.reason
}

func (s *Server) Handle(ctx *fasthttp.RequestCtx) { s.handle(ctx) }

// ProblemOfOutcome returns the name and status of an outcome's problem, "none"
// where it has none.
func ProblemOfOutcome(o engine.Outcome) (string, int) {
	p := outcomeProblems[o]
	return p.String(), p.status()
}

func ProblemOfError(err error) (string, int) {
	p, _ := problemOf(err)
	return p.String(), p.status()
}

// AllProblems returns the name and status of every problem.
func AllProblems() map[string]int {
	all := make(map[string]int)
	for p := noProblem + 1; p < problemCount; p++ {
		all[p.String()] = p.status()
	}
	return all
}

// CountsStatus reports whether requests with that status are counted as such.
func CountsStatus(status int) bool { return statusIndex(status) != 0 }

// RouteTable returns the server's own routes and aliases with what they allow.
func RouteTable() map[string]string {
	table := make(map[string]string)
	for _, r := range routes {
		if r.methods == 0 {
			continue
		}
		table[r.name] = r.methods.String()
		for _, alias := range r.aliases {
			table[alias] = r.methods.String()
		}
	}
	return table
}

// Match returns the name of the route a path has, "none" where it has none.
func Match(path string) (name, id string) {
	r, found := match([]byte(path))
	return routes[r].name, string(found)
}

func AppendString(s string) string { return string(appendString(nil, s)) }

// Connections returns how many clients are connected.
func Connections(s *Server) int64 {
	inside, _ := s.connections()
	return inside
}

// Owing returns how many connections owe an answer or are writing one.
func Owing(s *Server) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.doors {
		d.mu.Lock()
		for c := range d.all {
			if c.turn.TryLock() {
				c.turn.Unlock()
			} else {
				n++
			}
		}
		d.mu.Unlock()
	}
	return n
}
