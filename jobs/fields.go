package jobs

import (
	"encoding/json"
	"fmt"
	"time"
)

// The readers of single JSON values, for whoever reads an object with
// [EachField]. raw is one valid JSON value without space around it, as EachField
// hands it out. Their errors are made to stand behind the field's pointer: "must
// be a string, not 5".

// StringField reads a string.
func StringField(raw json.RawMessage) (string, error) { return stringValue(raw) }

// IntField reads a whole number from lo to hi.
func IntField(raw json.RawMessage, lo, hi int) (int, error) { return intValue(raw, lo, hi) }

// BoolField reads true or false.
func BoolField(raw json.RawMessage) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("must be true or false, not %s", describe(raw))
}

// TimeoutField reads a timeout: seconds, or a duration's text; above 0, at most
// [MaxTimeout].
func TimeoutField(raw json.RawMessage) (time.Duration, error) { return timeoutValue(raw) }

// TagsField reads a list of tags within the bounds of a submission.
func TagsField(raw json.RawMessage) ([]string, error) { return tagsValue(raw) }

// FieldPointer is the JSON pointer (RFC 6901) to a field of the body.
func FieldPointer(name string) string { return "/" + escapePointer(name) }

// DescribeValue is raw as an error shows it: itself if it is short.
func DescribeValue(raw json.RawMessage) string { return describe(raw) }
