// Package archive is the format of backups: a tar with checksums, written and read front
// to back, so that it fits through a pipe and is verified while it passes.
//
// Its first entry, backup.json, is an [Info]. Then come the files of a data folder under
// the names that they have there, status.db first. The last entry, SHA256SUMS, lists all
// others in their order, as sha256sum writes and checks it. A comment at its end has a
// CRC of all bytes before the list, so that damage between the files is found, too.
//
// Where to start: [NewWriter] makes an archive, [Read] reads and verifies one, names.go
// says which names an archive may have.
package archive
