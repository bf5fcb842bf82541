// Package boltfile is one bbolt file, with all that the program knows about how bbolt
// keeps it. It knows nothing of what the tracker stores in it.
//
// Where to start: [Open] and [File], in file.go, which turn damage into errors.
// pages.go walks over all pages, because bbolt trusts them. intact.go says when that
// walk is needless. panic.go tells a damaged file from a bug, compact.go makes the
// file smaller, and package journal makes a commit durable with one fsync.
package boltfile
