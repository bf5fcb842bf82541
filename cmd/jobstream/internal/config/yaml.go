package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"jobstream/jobs/setting"
)

// mask replaces a secret that is set.
const mask = "********"

// YAML is the effective configuration: every key of the shipped file in its order, with
// masked secrets. Except for these it loads as the same configuration.
//
// It is written by hand, one line per key. An encoder leaves text like .inf without
// quotes, which is then read as a number.
func (c *Config) YAML() ([]byte, error) {
	types := make(map[string]*JobType, len(c.Jobs))
	for name, t := range c.Jobs {
		types[name] = &t
	}
	var out []byte
	var open []string // the sections around the last line
	for _, k := range c.keys(c.inOrder(types)) {
		if subtree(k) {
			var err error
			if out, err = c.appendSchedules(out); err != nil {
				return nil, err
			}
			open = nil
			continue
		}
		path := strings.Split(k.Path, ".")
		last := len(path) - 1
		for i, name := range path[:last] {
			if i < len(open) && open[i] == name {
				continue
			}
			out = fmt.Appendf(out, "%s%s:\n", indent(i), scalar(name))
			open = append(slices.Clone(open[:i]), name)
		}
		open = open[:last]
		v := k.Get()
		if k.Secret {
			v = masked(v)
		}
		out = fmt.Appendf(out, "%s%s: %s\n", indent(last), path[last], scalar(v))
	}
	return out, nil
}

// masked is the shape of v without its contents.
func masked(v any) any {
	switch v := v.(type) {
	case string:
		if v == "" {
			return v
		}
	case []string:
		for i := range v {
			v[i] = mask
		}
		return v
	case map[string]string:
		for name := range v {
			v[name] = mask
		}
		return v
	}
	return mask
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// bare matches text that every YAML parser reads as text, except for the words below.
var (
	bare     = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./@-]*|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)$`)
	notBare  = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
	mustJSON = func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // text, numbers and booleans always marshal
		}
		return string(b)
	}
)

// scalar writes a value. A JSON string is also a YAML string.
func scalar(v any) string {
	switch v := v.(type) {
	case setting.Plain:
		return string(v)
	case string:
		if bare.MatchString(v) && !slices.Contains(notBare, strings.ToLower(v)) {
			return v
		}
	}
	return mustJSON(v)
}
