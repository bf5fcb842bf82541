package status

// Syncs counts the fsyncs of the tracker's commits; take the difference of two
// calls. Not counted is the one that the file needs when it grows, for every 16 MiB
// of it.
func (s *Store) Syncs() (uint64, error) { return s.db.Syncs() }
