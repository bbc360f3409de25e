// Package engine decides who gets a unit.
//
// It is the root of the import graph and imports the standard library only: it
// knows no clock, no disk and no network. The rule that decides is in
// product.go and is pure; shard.go runs it, one goroutine for many products;
// engine.go hands orders to shards and waits for durable answers; ports.go says
// what the engine asks of the world.
//
// # Words
//
// Each is used for one thing only, here and in every other package.
//
//   - Product: what is sold. Its Settings are what an admin chose, its counters
//     belong to one run of the sale.
//   - Run: one sale of a product. A reset starts the next one.
//   - Stock: all units of a run. Remaining: units nobody has. Held: units of
//     orders that wait for a confirm. Sold: units of confirmed orders.
//     Stock = Remaining + Held + Sold, always.
//   - Order: what a buyer got. Number: its place in its run, from 0.
//   - Idempotency key: a name for one attempt to buy, made by the client.
//   - Command: what is asked of a product. Outcome: the code it is answered with.
//   - Event: what an accepted command changed; what the journal keeps.
//   - Sequence: an event's place in the node's journal, from 1, without gaps.
//   - Listing: a product as the outside sees it: its shard and its View.
//   - View: a product's counters as of the last durable event.
//   - Shard: one goroutine that owns many products. Inbox: its bounded queue.
//   - Batch: what is decided, stored or answered together.
//   - Journal: keeps events on stable storage. Gate: a cluster's admission.
//   - Relay: journal to broker. Settler: broker to Postgres.
//
// # Promises
//
// Tests, comments and the README name them by number.
//
//  1. Never oversold.
//  2. Acknowledged means on disk.
//  3. An idempotency key buys at most once and its retry is told so.
//  4. Every accepted order is stored in Postgres once.
//  5. Full means refused fast.
package engine
