package jobs

import "log/slog"

// LogAttr names a job in a line of the server's log: its id, its type and the number of
// the attempt that the line is about, 0 if none has begun. They are attributes of the
// line itself, and no other code makes any by these names.
func LogAttr(id ID, typ string, attempt int) slog.Attr {
	return slog.GroupAttrs("", slog.String("job", id.String()), slog.String("type", typ), slog.Int("attempt", attempt)) //nolint:sloglint // the only place
}

// LogAttr is [LogAttr] of a job's latest attempt.
func (j *Job) LogAttr() slog.Attr { return LogAttr(j.ID, j.Type, j.Attempt) }
