package journal

import (
	"reflect"
	"sync"

	"go.etcd.io/bbolt"
)

// writeHook is the field in which bbolt keeps the function that writes to its file.
// bbolt has it for its own tests, and offers no other access to the pages of a commit.
// ok is false if a later version does not have it. Then there is no journal, and
// everything works as in plain bbolt.
func writeHook(db *bbolt.DB) (hook *func([]byte, int64) (int, error), ok bool) {
	ops := reflect.ValueOf(db).Elem().FieldByName("ops")
	if ops.Kind() != reflect.Struct {
		return nil, false
	}
	f := ops.FieldByName("writeAt")
	if !f.IsValid() || f.Type() != reflect.TypeFor[func([]byte, int64) (int, error)]() || f.IsNil() {
		return nil, false
	}
	return (*func([]byte, int64) (int, error))(f.Addr().UnsafePointer()), true
}

// metaLock is bbolt's lock on its meta pages. It is nil if a later version has none of
// that name.
func metaLock(db *bbolt.DB) *sync.Mutex {
	f := reflect.ValueOf(db).Elem().FieldByName("metalock")
	if !f.IsValid() || f.Type() != reflect.TypeFor[sync.Mutex]() {
		return nil
	}
	return (*sync.Mutex)(f.Addr().UnsafePointer())
}
