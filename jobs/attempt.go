package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"unicode/utf8"

	"jobstream/jobs/strict"
)

// Attempt calls a handler once. A panic becomes an error, and log gets its stack. The
// server's own workers call handlers with it, and so do those elsewhere.
func Attempt(ctx context.Context, h Handler, t *Task, log *slog.Logger) (result Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			log.Error("a handler panicked; that counts as a failed attempt", LogAttr(t.Job.ID, t.Job.Type, t.Attempt, t.Trace()), "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return h.Handle(ctx, t)
}

// EncodeResult is the JSON of a handler's result, as its job keeps it. The error is
// [Permanent]: it is no JSON, nested too deeply, or larger than [MaxResult].
func EncodeResult(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // people read it, and <…> is common in mail
	if err := enc.Encode(v); err != nil {
		return nil, Permanentf("the handler's result is not JSON: %w", err)
	}
	b := bytes.TrimSpace(buf.Bytes())
	if !utf8.Valid(b) { // from a handler's json.RawMessage
		b = bytes.ToValidUTF8(b, []byte("\ufffd"))
	}
	if len(b) > MaxResult {
		return nil, Permanentf("the handler's result has %d bytes of JSON, at most %d are kept; use an artifact", len(b), MaxResult)
	}
	if strict.TooDeep(b) {
		return nil, Permanentf("the handler's result is nested deeper than %d", strict.MaxDepth)
	}
	return b, nil
}
