package broker

import (
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestLinkCloses although the server has gone and cannot be reached any more.
func TestLinkCloses(t *testing.T) {
	var server net.Conn
	var tries atomic.Int32
	again := make(chan struct{})
	dial := func() (net.Conn, error) {
		switch tries.Add(1) {
		case 1:
			client, remote := net.Pipe()
			server = remote
			go func() { _, _ = remote.Write([]byte("INFO {}\r\n")) }()
			return client, nil
		case 2:
			close(again)
		}
		return nil, errors.New("nobody is there")
	}
	l, err := openLink("test", 0, slog.New(slog.DiscardHandler), dial, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	<-again
	closed := make(chan struct{})
	go func() { l.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("it does not close")
	}
}
