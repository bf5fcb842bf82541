package main

import (
	"fmt"
	"log/slog"
)

// How the files that the process may have open are shared out. Whoever reaches a port
// can open connections, so what the store needs is kept back from them: a stream that
// cannot open a file stops for good.
const (
	storeFiles   = 128 // streams, tracker, journal, ports, and what is being refused; some 20 when idle
	filesAWorker = 2   // an artifact, a connection to a mail server; at most half of what is left
	// For each connection allowed at a port: one to REST and the file that it downloads,
	// one to NATS and one that comes there to be refused.
	filesOfClient = 4
	leastConns    = 16
	fewConns      = 100
	usualConns    = 10_000
	leastFiles    = storeFiles + 2*filesOfClient*leastConns
)

// connsAllowed is how many connections each of the two ports may have if the process
// may have so many files open: want, or as many as there are files for.
func connsAllowed(want, workers int, files uint64) (int, error) {
	if files < leastFiles {
		return 0, fmt.Errorf("only %d files may be open at a time and jobstream needs at least %d; raise the limit: ulimit -n 65536, or LimitNOFILE=65536 for systemd", files, leastFiles)
	}
	spare := files - storeFiles
	spare -= min(uint64(workers)*filesAWorker, spare/2)
	return int(min(uint64(want), spare/filesOfClient)), nil
}

// conns is connsAllowed for this process; without a wish it is up to usualConns. It tells
// if that is less than wanted, or too few to be meant.
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
