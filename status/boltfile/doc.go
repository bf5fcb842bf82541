// Package boltfile is one bbolt file, with everything that the program knows about
// bbolt's format. It does not know what the tracker stores in it.
//
// Where to start: [Open] and [File], in file.go, turn damage into errors. tx.go has the
// transactions, which can be noted: everything that they write passes there. pages.go
// walks over all pages, because bbolt trusts them. intact.go decides when that walk is
// needless. panic.go tells a damaged file from a bug. compact.go shrinks the file.
// replace.go puts another one in its place while it is read.
// Package journal makes a commit durable with one fsync.
package boltfile
