package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/jobs/setting"
)

// Schedules are no keys of the table: users choose their names, and payloads may be
// anything. The package schedule knows the rules for the rest, and reads JSON. So each
// entry of the section is converted to JSON, and problems with a field are reported at
// the key that it came from.

// Bounds of sections as JSON. A file can hardly reach them without aliases. With a few lines
// of aliases it could reach any size.
const (
	maxSchedulesJSON = 1 << 20 // bytes of the schedules section
	maxTreeDepth     = 64      // nested sections and lists
)

// readSchedules reads the section that merge has found.
func (l *loader) readSchedules() {
	if l.schedules == nil {
		return
	}
	left := maxSchedulesJSON
	for _, e := range l.schedules.entries {
		s := scheduleReader{loader: l, path: join(schedulesKey, e.key), entry: e}
		left -= s.read(left)
	}
	slices.SortFunc(l.config.Schedules, func(a, b schedule.Spec) int { return strings.Compare(a.Name, b.Name) })
}

// scheduleReader reads one entry of the section.
type scheduleReader struct {
	*loader
	path  string
	entry entry
}

// read adds the schedule or its problems. It returns the size of its JSON in bytes,
// which must not exceed limit.
func (s scheduleReader) read(limit int) (size int) {
	n := s.entry.node
	s.lines[s.path] = s.entry.line
	switch {
	case !jobs.ValidTypeName(s.entry.key):
		s.fail(s.path, "", fmt.Sprintf("is not a name for a schedule: 1 to %d letters, digits, _ and -", jobs.MaxTypeName))
		return 0
	case n.isNull():
		n = &node{section: true}
	case !n.section:
		s.fail(s.path, n.show(), "is not a section with cron or every, and type")
		return 0
	}
	w := jsonWriter{limit: limit, large: "makes the schedules larger than " + setting.FormatSize(maxSchedulesJSON) + ", which only aliases can do"}
	if at, value, wrong := w.write(n, 1); wrong != "" {
		s.failAt(at, value, wrong)
		return 0
	}
	s.checkType(n.child("type"))
	spec, err := schedule.ParseNamedSpec(s.entry.key, w.out)
	if err == nil {
		s.config.Schedules = append(s.config.Schedules, *spec)
		return len(w.out)
	}
	var e *jobs.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		s.fail(s.path, "", err.Error())
		return len(w.out)
	}
	for _, f := range e.Fields {
		s.failAt(pointerNames(f.Pointer), "", f.Detail)
	}
	return len(w.out)
}

// checkType checks that the schedule's type, if it is text, is in the jobs section.
func (s scheduleReader) checkType(n *node) {
	if n == nil || len(s.types) == 0 { // the jobs section has a problem of its own
		return
	}
	name, ok := n.value.(string)
	known := func(t namedType) bool { return t.name == name }
	if !ok || name == "" || n.number != "" || slices.ContainsFunc(s.types, known) {
		return
	}
	names := make([]string, len(s.types))
	for i, t := range s.types {
		names[i] = t.name
	}
	s.failAt([]string{"type"}, quote(name), "is not a job type; known are "+strings.Join(names, ", "))
}

// failAt adds a problem with the value that these names lead to from the entry. Its
// line is that of the last existing name.
func (s scheduleReader) failAt(names []string, value, text string) {
	path, at := s.path, &s.entry
	line := at.line
	for _, name := range names {
		path = join(path, name)
		if at = at.step(name); at != nil {
			line = at.line
		}
	}
	s.lines[path] = line
	s.fail(path, value, text)
}

// step is the part of a section or a list with this name or index; nil if there is
// none.
func (e *entry) step(name string) *entry {
	if e == nil {
		return nil
	}
	for i := range e.node.entries {
		if e.node.entries[i].key == name {
			return &e.node.entries[i]
		}
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(e.node.list) {
		item := e.node.list[i]
		return &entry{name, item.line, item}
	}
	return nil
}

// pointerNames are the names of a JSON pointer, RFC 6901. In a file the name of a
// schedule is not below it, but before it.
func pointerNames(pointer string) []string {
	if pointer == "" || pointer == "/name" {
		return nil
	}
	names := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, name := range names {
		names[i] = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
	}
	return names
}

// jsonWriter converts nodes to JSON without white space.
type jsonWriter struct {
	out   []byte
	limit int    // of out
	large string // the problem of what is larger
}

// write appends n, whose nesting is depth. If JSON or the bounds do not allow a part of
// it, wrong is the reason, at its place and value its text.
func (w *jsonWriter) write(n *node, depth int) (at []string, value, wrong string) {
	switch {
	case len(w.out) > w.limit:
		return nil, "", w.large
	case depth > maxTreeDepth:
		return nil, "", fmt.Sprintf("is nested deeper than %d levels", maxTreeDepth)
	case n.section:
		return w.writeSection(n, depth)
	case n.value == nil:
		return w.writeList(n, depth)
	case n.number != "":
		w.out = append(w.out, n.number...)
		return nil, "", ""
	}
	switch v := n.value.(type) {
	case setting.Null:
		w.out = append(w.out, "null"...)
	case bool:
		w.out = strconv.AppendBool(w.out, v)
	case string:
		w.out = jobs.AppendString(w.out, v)
	default:
		return nil, show(v), "is not a number that JSON has"
	}
	return nil, "", ""
}

func (w *jsonWriter) writeSection(n *node, depth int) (at []string, value, wrong string) {
	w.out = append(w.out, '{')
	for i, e := range n.entries {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = append(jobs.AppendString(w.out, e.key), ':')
		if at, value, wrong = w.write(e.node, depth+1); wrong != "" {
			return append([]string{e.key}, at...), value, wrong
		}
	}
	w.out = append(w.out, '}')
	return nil, "", ""
}

func (w *jsonWriter) writeList(n *node, depth int) (at []string, value, wrong string) {
	w.out = append(w.out, '[')
	for i, item := range n.list {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if at, value, wrong = w.write(item, depth+1); wrong != "" {
			return append([]string{strconv.Itoa(i)}, at...), value, wrong
		}
	}
	w.out = append(w.out, ']')
	return nil, "", ""
}

var jsonNumberForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// jsonNumber is a number of the file as JSON has it. It is text itself if that is JSON,
// so that no digit is lost. Otherwise it is value, as the parser read it (0x1F, 1_000,
// .5). "" means that there is none.
func jsonNumber(text string, value any) string {
	if jsonNumberForm.MatchString(text) {
		return text
	}
	switch v := value.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		if !math.IsInf(v, 0) && !math.IsNaN(v) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return ""
}

// appendSchedules writes the schedules section.
func (c *Config) appendSchedules(out []byte) ([]byte, error) {
	if len(c.Schedules) == 0 {
		return fmt.Appendf(out, "%s: {}\n", schedulesKey), nil
	}
	out = fmt.Appendf(out, "%s:\n", schedulesKey)
	for _, s := range c.Schedules {
		out = fmt.Appendf(out, "%s%s:\n", indent(1), scalar(s.Name))
		for _, f := range scheduleFields(&s) {
			text, err := inline(f.value)
			if err != nil {
				return nil, fmt.Errorf("schedule %s: %s: %w", s.Name, f.name, err)
			}
			out = fmt.Appendf(out, "%s%s: %s\n", indent(2), f.name, text)
		}
	}
	return out, nil
}

type field struct {
	name  string
	value any
}

// scheduleFields are the fields of a schedule as YAML shows them, without those that it
// leaves to its type.
func scheduleFields(s *schedule.Spec) []field {
	fields := []field{{"cron", s.Cron}, {"timezone", s.Timezone}, {"type", s.Type}}
	if s.Every > 0 {
		fields[0] = field{"every", showEvery(s)}
	}
	if s.Payload != nil {
		fields = append(fields, field{"payload", maskPayload(s.Payload)})
	}
	fields = append(fields, field{"priority", int(s.Priority)})
	if len(s.Tags) > 0 {
		fields = append(fields, field{"tags", s.Tags})
	}
	if s.RetryCount >= 0 {
		fields = append(fields, field{"retry_count", s.RetryCount})
	}
	if s.Timeout > 0 {
		fields = append(fields, field{"timeout", setting.ShowDuration(s.Timeout)})
	}
	if s.CallbackURL != "" {
		fields = append(fields, field{"callback_url", s.CallbackURL})
	}
	return append(fields, field{"paused", s.Paused}, field{"overlap", string(s.Overlap)}, field{"catch_up", string(s.CatchUp)})
}

// maskPayload shows only that there is a payload. It may contain a secret, and only its
// type knows where.
func maskPayload(payload json.RawMessage) any {
	if string(payload) == "{}" {
		return setting.Plain("{}")
	}
	return mask
}

// showEvery is the given text of an interval, which other people see as well.
func showEvery(s *schedule.Spec) any {
	switch text := s.EveryText; {
	case text != "" && text[len(text)-1] > '9': // a unit
		return setting.Plain(text)
	case text != "":
		return text
	}
	return s.Every.Seconds()
}

// inline writes a value, also a nested one, in one line. Invisible characters in its
// texts become escapes.
func inline(v any) (string, error) {
	if _, ok := v.([]string); !ok {
		return scalar(v), nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return "", err
	}
	return onOneLine(line.Bytes()), nil
}

// onOneLine is compact JSON as one line of YAML.
func onOneLine(text []byte) string {
	text = escapeStrings(text, func(r rune) bool { return !unicode.IsPrint(r) })
	if !balanced(text) {
		text = escapeStrings(text, func(r rune) bool { return strings.ContainsRune("[]{}-?", r) })
	}
	return string(text)
}

// balanced says whether a line of JSON leaves the nesting for tooDeep as it is. tooDeep
// also counts brackets in texts.
func balanced(line []byte) bool {
	open := 0
	for _, c := range line {
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
	}
	return open == 0 && tooDeep(line) == 0
}

// escapeStrings writes as escapes those runes of the strings in a JSON text for which
// must is true.
func escapeStrings(text []byte, must func(rune) bool) []byte {
	var out []byte
	inside := false
	for i := 0; i < len(text); {
		if inside && text[i] == '\\' {
			out = append(out, text[i:i+2]...)
			i += 2
			continue
		}
		if text[i] == '"' {
			inside = !inside
		}
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case !inside || !must(r):
			out = append(out, text[i:i+n]...)
		case r > 0xffff:
			out = fmt.Appendf(out, `\U%08x`, r) // YAML has it, and needs no surrogates
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	return out
}
