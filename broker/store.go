package broker

import (
	"reflect"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// What the server has no interface for, and costs most where jobs come by the
// ten thousand, is done by stores of our own that stand before the one of JOBS, one
// before the other: an index of the lanes (lane_index.go), the lanes' memory of what
// they delivered (lane_state.go), and a tap for the reader (tap.go). Each adds to
// the server's store and takes nothing from it.

// wrapJobs puts them there. The store is an unexported field of the server's stream.
// Where a later version has no such field, it is not done, and all works as the
// server does it, slower. So it does if somebody deletes the stream and makes it
// again.
//
// It must be called before anybody uses the stream. Consumers of other clients, and
// those of streams that source or mirror JOBS, run as soon as the server does, and
// read the field under no lock that could be had here. They are made under the
// stream's lock, so with that in hand there is one to be seen or there is none; and
// if there is one, the field is left alone.
func (b *Broker) wrapJobs() {
	b.index, b.tap = nil, nil
	field, mu, consumers := storeOf(b.srv, JobsStream)
	if field == nil {
		b.log.Warn("jobs will be slower: this version of nats-server keeps its streams in another way", "version", server.VERSION)
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if n := consumers(); n > 0 {
		b.log.Info("jobs will be slower in this run: the stream has consumers of other clients, or is copied by another stream", "stream", JobsStream, "consumers", n)
		return
	}
	b.index = newLaneIndex(*field)
	b.tap = &tap{StreamStore: laneStates{b.index}}
	*field = b.tap
}

// storeOf is where the server keeps the store of a stream of the global account,
// the lock of that stream, and under it the number of its consumers; nil if that is
// not where it is looked for.
func storeOf(srv *server.Server, stream string) (store *server.StreamStore, mu *sync.RWMutex, consumers func() int) {
	at := reflect.ValueOf(srv.GlobalAccount())
	for _, name := range []string{"js", "streams"} {
		if !pointsToStruct(at) {
			return nil, nil, nil
		}
		at = at.Elem().FieldByName(name)
	}
	if at.Kind() != reflect.Map || at.Type().Key().Kind() != reflect.String {
		return nil, nil, nil
	}
	at = at.MapIndex(reflect.ValueOf(stream))
	if !pointsToStruct(at) {
		return nil, nil, nil
	}
	field, lock, readers := at.Elem().FieldByName("store"), at.Elem().FieldByName("mu"), at.Elem().FieldByName("consumers")
	if !field.IsValid() || field.Type() != reflect.TypeFor[server.StreamStore]() || field.IsNil() ||
		!lock.IsValid() || lock.Type() != reflect.TypeFor[sync.RWMutex]() ||
		!readers.IsValid() || readers.Kind() != reflect.Map {
		return nil, nil, nil
	}
	return (*server.StreamStore)(field.Addr().UnsafePointer()), (*sync.RWMutex)(lock.Addr().UnsafePointer()), readers.Len
}

func pointsToStruct(v reflect.Value) bool {
	return v.Kind() == reflect.Pointer && !v.IsNil() && v.Elem().Kind() == reflect.Struct
}
