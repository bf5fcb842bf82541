package jobs

import (
	"encoding/json"
	"time"
)

// TimeoutField reads a timeout: seconds, or a duration's text; above 0, at most
// [MaxTimeout].
func TimeoutField(raw json.RawMessage) (time.Duration, error) { return timeoutValue(raw) }

// TagsField reads a list of tags within the bounds of a submission.
func TagsField(raw json.RawMessage) ([]string, error) { return tagsValue(raw) }
