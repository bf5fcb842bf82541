// Package index finds and counts the tracker's jobs without reading their records. Its
// bitmaps, spans and counters change in the same transactions as the records.
//
// Where to start: bits.go has the bitmaps, by attribute and chunk of keys. walk.go goes
// over the chunks in which a filter may choose jobs. span.go has the times that rule
// chunks out. breakdown.go, counters.go and position.go count. live.go has the set of
// messages that have to stay in JOBS.
package index
