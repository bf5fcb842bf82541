package api

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/strict"
)

// logLevels are the levels of the server's log.
var logLevels = []jobs.Level{jobs.LevelDebug, jobs.LevelInfo, jobs.LevelWarn, jobs.LevelError}

var (
	logLevelForm = form.Object(form.Need("level", form.OneOf(logLevels...), "the least level of the lines that are logged"))

	logLevelDoc = form.Doc{
		Summary: "Set the level of the server's log",
		Text:    "It holds until the next start, or until `log.level` is edited and the configuration read again. `GET /info` has it.",
		Body:    logLevelForm,
		Example: `{"level":"debug"}`,
		Answer:  logLevelForm,
		Codes:   []jobs.ErrorKind{jobs.Conflict},
	}
)

// logLevel is both the input and the answer.
type logLevel struct {
	Level jobs.Level `json:"level"`
}

// AppendJSON appends the answer.
func (l *logLevel) AppendJSON(b []byte) []byte { return appendMarshalled(b, l) }

func readLogLevel(r Request) (l logLevel, err error) {
	body, err := bodyOnly(r)
	if err != nil {
		return l, err
	}
	return l, jobs.Read("", body, func(v strict.Value) {
		v.Object(strict.Need("level", func(v strict.Value) { l.Level = readLevel(v) }))
	})
}

// readLevel reads the name of a level.
func readLevel(v strict.Value) jobs.Level {
	names := make([]string, len(logLevels))
	for i, l := range logLevels {
		names[i] = string(l)
	}
	name, _ := v.OneOf(names...)
	return jobs.Level(name)
}

func setLogLevel(ctx context.Context, c Call, l logLevel) (Answer, error) {
	jobs.About(ctx, string(l.Level))
	return Answer{JSON: &l}, c.Reloader.SetLogLevel(l.Level)
}
