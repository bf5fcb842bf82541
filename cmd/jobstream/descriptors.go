package main

import (
	"fmt"
	"log/slog"
)

// The shares of the files that the process may have open. Anybody who reaches a port
// can open connections. A stream that cannot open a file stops for good, so the store's
// share is kept back from them.
const (
	storeFiles   = 128 // streams, tracker, journal, ports, connections to refuse; about 20 when idle
	filesAWorker = 2   // an artifact, a connection to a mail server; at most half of the rest
	// For each connection allowed at a port: one to REST and its download, one to NATS
	// and one that is refused there.
	filesOfClient = 4
	leastConns    = 16
	fewConns      = 100
	usualConns    = 10_000
	leastFiles    = storeFiles + 2*filesOfClient*leastConns
)

// connsAllowed is the bound of connections at each of the two ports, in a process that
// may have so many files open. It is want, or lower if there are too few files.
func connsAllowed(want, workers int, files uint64) (int, error) {
	if files < leastFiles {
		return 0, fmt.Errorf("only %d files may be open at a time and jobstream needs at least %d; raise the limit: ulimit -n 65536, or LimitNOFILE=65536 for systemd", files, leastFiles)
	}
	spare := files - storeFiles
	spare -= min(uint64(workers)*filesAWorker, spare/2)
	return int(min(uint64(want), spare/filesOfClient)), nil
}

// conns is connsAllowed for this process. want = 0 stands for up to usualConns. It logs
// a bound below want, and one that nobody can have meant.
func conns(want, workers int, log *slog.Logger) (int, error) {
	least := want
	if want == 0 {
		want, least = usualConns, fewConns
	}
	files, known := fileLimit()
	if !known {
		return want, nil
	}
	allowed, err := connsAllowed(want, workers, files)
	if err == nil && allowed < least {
		log.Warn("few connections are let in (server.max_connections), as the rest of the files that may be open is the store's; raise the limit: ulimit -n 65536, or LimitNOFILE=65536 for systemd",
			"connections", allowed, "wanted", want, "open files", files)
	}
	return allowed, err
}
