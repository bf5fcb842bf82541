package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// A callback is the request that notifies a URL of the end of a job. It is a job of its own,
// of the type [CallbackType]: it is made in the transaction of that end, retried, shown
// and cancelled like any job. Its payload is everything that the request needs, because
// the other job may have changed or gone when it is sent.

// CallbackType is the type of callbacks.
const CallbackType = "jobstream-webhook"

// Webhook is a URL of the configuration that is notified of the ends of jobs.
type Webhook struct {
	URL      string
	Types    []string // of these types; empty = of all
	Statuses []Status // with these statuses; empty = with all
}

func (w *Webhook) wants(j *Job) bool {
	return (len(w.Types) == 0 || slices.Contains(w.Types, j.Type)) &&
		(len(w.Statuses) == 0 || slices.Contains(w.Statuses, j.Status))
}

// Webhooks are those of a configuration, each with a URL of its own.
type Webhooks []Webhook

// Callback is the payload of a callback, as JSON.
type Callback struct {
	URL string `json:"url"`
	// Webhook says that the URL is one of the configuration. Otherwise it came with the
	// job.
	Webhook bool `json:"webhook,omitempty"`
	// ID names the end: the same for all URLs, all attempts and in notifications.
	ID   string `json:"id"`
	Type string `json:"type"` // like job.completed
	At   string `json:"timestamp"`
	// Omitted are the members that the job lacks because it would be too large.
	Omitted []string        `json:"omitted,omitempty"`
	Job     json.RawMessage `json:"data"` // as it ended
}

// MaxCallback bounds the job in a callback, in bytes. Larger ones come without their
// payload, or also without their result and errors.
const MaxCallback = 20_000

// WithCallbacks says whether an end of j may have callbacks.
func (all Webhooks) WithCallbacks(j *Job) bool {
	return len(all) > 0 || j.Terms != nil && j.Terms.CallbackURL != ""
}

// Callbacks are those of the end of j, one for each URL.
func (all Webhooks) Callbacks(j *Job) (list []Callback) {
	url := ""
	if j.Terms != nil {
		url = j.Terms.CallbackURL
	}
	for i := range all {
		if all[i].wants(j) {
			list = append(list, Callback{URL: all[i].URL, Webhook: true})
			if all[i].URL == url {
				url = "" // it is notified once
			}
		}
	}
	if url != "" {
		list = append(list, Callback{URL: url})
	}
	if len(list) == 0 {
		return nil
	}
	body, omitted := j.AppendFitting(nil, nil, MaxCallback)
	for i := range list {
		c := &list[i]
		c.ID, c.Type, c.At = fmt.Sprintf("%s.%s.%d", j.ID, j.Status, j.Run), "job."+j.Status.String(), j.EndedAt.String()
		if c.Job = body; omitted != "" {
			c.Omitted = strings.Split(omitted, ",")
		}
	}
	return list
}

// CallbackID is the id of the callback of a job's run to a URL: a hash of these.
func CallbackID(id ID, run int, url string) ID {
	return uuid.NewHash(sha256.New(), id, []byte(strconv.Itoa(run)+" "+url), MadeVersion)
}

// CallbackTag is the tag of all callbacks to a URL. Each also has the id of its job as a
// tag.
func CallbackTag(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "url:" + hex.EncodeToString(sum[:16])
}

// NewJob is the callback of a run of j as a job, due at once. Those to one host share a
// concurrency key, so that a dead one does not hold up the others. t is their type.
func (c *Callback) NewJob(j *Job, key uint64, now Time, t *Type) *Job {
	made := NewJob(&Message{
		ID: CallbackID(j.ID, j.Run, c.URL), Seq: key, Type: CallbackType, Priority: DefaultPriority,
		Payload: c.appendJSON(make([]byte, 0, len(c.Job)+len(c.URL)+256)),
		Tags:    []string{j.ID.String(), CallbackTag(c.URL)}, RetryCount: -1, At: now,
		CreatedBy: j.CreatedBy,
		Terms:     &Terms{ConcurrencyKey: Shorten(hostOf(c.URL), MaxKey/2), Trace: j.Trace()},
	}, t, true)
	made.Seq = 0 // it has no message yet
	return made
}

// appendJSON appends the payload, with the job byte for byte.
func (c *Callback) appendJSON(b []byte) []byte {
	b = AppendString(append(b, `{"url":`...), c.URL)
	if c.Webhook {
		b = append(b, `,"webhook":true`...)
	}
	b = AppendString(append(b, `,"id":`...), c.ID)
	b = AppendString(append(b, `,"type":`...), c.Type)
	b = AppendString(append(b, `,"timestamp":`...), c.At)
	if len(c.Omitted) > 0 {
		b = AppendValueJSON(append(b, `,"omitted":`...), &c.Omitted)
	}
	b = append(append(b, `,"data":`...), c.Job...)
	return append(b, '}')
}

// hostOf is the host of a URL that [CheckCallbackURL] has passed, with its port.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return strings.ToLower(rest)
}

// DisabledURL is a URL that gets no callbacks any more.
type DisabledURL struct {
	URL   string
	Since Time
	By    ID // the callback that it has refused
}

// MaxURL bounds the URL of a callback, in bytes.
const MaxURL = 2048

// CheckCallbackURL returns the problem with the form of a URL, if any. Whether requests to
// it are allowed is the business of [CallbackType]'s handler.
func CheckCallbackURL(url string) error {
	scheme, rest, ok := strings.Cut(url, "://")
	switch host := hostOf(url); {
	case len(url) > MaxURL:
		return fmt.Errorf("is longer than %d bytes", MaxURL)
	case !ok || !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "http"):
		return errors.New("must be an absolute URL that begins with https:// or http://")
	case strings.ContainsFunc(url, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }):
		return errors.New("has a space, a backslash or a character beyond ASCII; escape them, and write the host in its ASCII form")
	case strings.Contains(rest, "#"):
		return errors.New("has a fragment, which no request can carry")
	case strings.Contains(host, "@"):
		return errors.New("has a user name or a password; put a token into its path or query instead")
	case host == "" || host[0] == ':':
		return errors.New("has no host")
	}
	return nil
}
