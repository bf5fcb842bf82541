package jobs

import "log/slog"

// LogAttr names a job in a line of the server's log: its id, its type, the number of the
// attempt that the line is about, 0 if none has begun, and the id of the trace, if there
// is one. They are attributes of the line itself, and no other code makes any by these
// names.
func LogAttr(id ID, typ string, attempt int, trace Trace) slog.Attr {
	all := []slog.Attr{slog.String("job", id.String()), slog.String("type", typ), slog.Int("attempt", attempt)} //nolint:sloglint // the only place
	if trace != (Trace{}) {
		all = append(all, slog.String("trace", trace.ID())) //nolint:sloglint // likewise
	}
	return slog.GroupAttrs("", all...)
}

// LogAttr is [LogAttr] of a job's latest attempt, in the trace of its submission.
func (j *Job) LogAttr() slog.Attr { return LogAttr(j.ID, j.Type, j.Attempt, j.Trace()) }
