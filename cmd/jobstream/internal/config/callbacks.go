package config

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/setting"
)

// webhooksKey is a list of sections. The package webhook knows the rules, and reads JSON,
// so problems with a field are reported at the key that it came from.
const webhooksKey = "webhooks"

// webhooks is the list. It is read by readCallbacks, once it is known as JSON.
func (c *Config) webhookList() setting.Setting {
	return orNothing(setting.Setting{
		Path:    webhooksKey,
		Allowed: "a list of sections with url and, if you want, types, statuses and secret",
		Tree:    true,
		Get:     func() any { return setting.Plain(onOneLine(webhooksJSON(c.Callbacks.Webhooks))) },
		Set: func(v any) bool {
			list, ok := v.(setting.JSON)
			if ok = ok && list[0] == '['; ok {
				c.webhooks = string(list)
			}
			return ok
		},
	}, setting.JSON("[]"))
}

// webhooksJSON is the list as the file has it, with masked secrets.
func webhooksJSON(all []webhook.Webhook) []byte {
	b := []byte{'['}
	for i, w := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = jobs.AppendString(append(b, `{"url":`...), w.URL)
		if len(w.Types) > 0 {
			b = append(append(b, `,"types":`...), mustJSON(w.Types)...)
		}
		if len(w.Statuses) > 0 {
			names := make([]string, len(w.Statuses))
			for i, s := range w.Statuses {
				names[i] = s.String()
			}
			b = append(append(b, `,"statuses":`...), mustJSON(names)...)
		}
		if len(w.Secret) > 0 {
			b = append(append(b, `,"secret":`...), mustJSON(masked(append([]string{}, w.Secret...)))...)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// readCallbacks reads the list of webhooks, and checks everything about callbacks.
func (l *loader) readCallbacks() {
	o := &l.config.Callbacks
	var list []json.RawMessage
	if l.config.webhooks != "" {
		if err := json.Unmarshal([]byte(l.config.webhooks), &list); err != nil {
			l.fail(webhooksKey, "", err.Error())
		}
	}
	l.config.webhooks = ""
	for i, raw := range list {
		w, err := webhook.ParseWebhook(raw)
		if err == nil {
			o.Webhooks = append(o.Webhooks, w)
			continue
		}
		o.Webhooks = append(o.Webhooks, webhook.Webhook{}) // the others keep their indexes
		var e *jobs.Error
		if !errors.As(err, &e) || len(e.Fields) == 0 {
			l.failBelow(webhooksKey, []string{strconv.Itoa(i)}, "", err.Error())
			continue
		}
		for _, f := range e.Fields {
			l.failBelow(webhooksKey, append([]string{strconv.Itoa(i)}, pointerNames(f.Pointer)...), "", f.Detail)
		}
	}
	types := make(map[string]bool)
	for _, t := range l.types {
		types[t.name] = true
	}
	o.Check(filepath.Dir(l.file), types, func(path, text string) {
		below, of := strings.CutPrefix(path, webhooksKey+".")
		index, _, _ := strings.Cut(below, ".")
		switch i, _ := strconv.Atoi(index); {
		case !of:
			l.fail(path, "", text)
		case o.Webhooks[i].URL != "": // else it could not be read, which is said above
			l.failBelow(webhooksKey, strings.Split(below, "."), "", text)
		}
	})
}
