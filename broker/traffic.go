package broker

import "fmt"

// Traffic is what the server has done for its clients, this process included, since it was
// opened.
type Traffic struct {
	Clients           int // connected now
	In, Out           int64
	InBytes, OutBytes int64
	Slow              int64 // clients that were dropped because they read too slowly
}

// Traffic is that of the server.
func (s *Server) Traffic() (Traffic, error) {
	v, err := s.srv.Varz(nil)
	if err != nil {
		return Traffic{}, fmt.Errorf("cannot look at the broker: %w", err)
	}
	return Traffic{
		Clients: v.Connections, In: v.InMsgs, Out: v.OutMsgs, InBytes: v.InBytes, OutBytes: v.OutBytes, Slow: v.SlowConsumers,
	}, nil
}
