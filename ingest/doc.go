// Package ingest is the HTTP side of a node: it accepts connections and bounds
// them, reads a request, knows who asks, hands a command to the engine and
// writes the answer. It knows routes and knows no stock.
//
// The way of one order is on one screen in place_order.go: authorise, decode,
// find the listing, refuse at once or ask the shard, encode. The table from
// outcomes and errors to HTTP is status.go and nowhere else. What is refused of
// HTTP itself, and why, is in head.go and limits.go; DESIGN.md has the figures.
package ingest
