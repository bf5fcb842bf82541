package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/busy"
	"jobstream/jobs/strict"
)

// answer is the answer to an attempt's request.
type answer struct {
	*nethttp.Response
	o *Options
	t *jobs.Task
}

// Bounds of the text of an answer that is an error.
const (
	maxWords  = 1 << 10         // bytes that are kept
	maxDrain  = 64 << 10        // bytes that are read, so that the connection can stay open
	wordsTime = 5 * time.Second // what reading them may take
)

// status names an answer's status. The words of the answer itself are not used.
func (a *answer) status() string {
	text := "the endpoint answered " + strconv.Itoa(a.StatusCode)
	if name := nethttp.StatusText(a.StatusCode); name != "" {
		text += " " + name
	}
	return text
}

// refusal is the error of an answer that is not 2xx.
func (a *answer) refusal() error {
	text, words := a.status(), a.words()
	switch {
	case strings.EqualFold(strings.TrimSpace(a.Header.Get("Job-Retry")), "no") || slices.Contains(a.o.Permanent, a.StatusCode):
		return jobs.Permanentf("%s%s", text, words)
	case a.StatusCode == nethttp.StatusTooManyRequests || a.StatusCode == nethttp.StatusServiceUnavailable:
		return busy.Error(a.t, retryAfter(a.Header, time.Now()), text)
	case a.StatusCode/100 == 3:
		if to := clean(a.Header.Get("Location")); to != "" {
			text += " to " + jobs.Shorten(to, maxWords)
		}
		text += "; redirects are not followed"
	}
	return errors.New(text + words)
}

// words is the beginning of an answer's body, for people, behind a colon.
func (a *answer) words() string {
	if a.encoded() != "" {
		return ""
	}
	late := time.AfterFunc(wordsTime, func() { _ = a.Body.Close() })
	defer late.Stop()
	b, _ := io.ReadAll(io.LimitReader(a.Body, maxWords)) // what has come is enough
	_, _ = io.CopyN(io.Discard, a.Body, maxDrain)
	if len(b) == maxWords { // a character may have been cut
		for n := len(b) - 1; n >= max(len(b)-utf8.UTFMax, 0); n-- {
			if utf8.RuneStart(b[n]) {
				if !utf8.FullRune(b[n:]) {
					b = b[:n]
				}
				break
			}
		}
	}
	if text := clean(string(b)); text != "" {
		return ": " + text
	}
	return ""
}

// clean is text for an error: one line, without characters that would do something.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != utf8.RuneError {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	return strings.Join(strings.Fields(s), " ")
}

// encoded is the encoding of a body that has not been decoded; "" for none.
func (a *answer) encoded() string {
	e := strings.ToLower(strings.TrimSpace(a.Header.Get("Content-Encoding")))
	if a.Uncompressed || e == "identity" {
		return ""
	}
	return e
}

// retryAfter is the header of that name, in seconds or as a moment. 0: it says nothing, or
// nothing that can be waited for.
func retryAfter(h nethttp.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(n, uint64(busy.Most/time.Second))) * time.Second
	}
	if at, err := nethttp.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), busy.Most)
	}
	return 0
}

// result is what an answer of 2xx leaves: a result if it is JSON, or else a file.
func (a *answer) result(ctx context.Context) (r jobs.Result, err error) {
	if e := a.encoded(); e != "" {
		return r, fmt.Errorf("%s with the encoding %s, which it was not asked for", a.status(), jobs.Quote(e))
	}
	mediaType := a.mediaType()
	maybeJSON := mediaType == "" || mediaType == "application/json" || mediaType == "text/json" || strings.HasSuffix(mediaType, "+json")
	body := &bounded{r: a.Body, left: a.o.Limits.Output}
	first := int64(512) // enough to see that there is something
	if maybeJSON {
		first = jobs.MaxResult + 1
	}
	head, err := readSome(body, first, a.ContentLength)
	if err != nil {
		return r, a.broken(ctx, err)
	}
	if text := bytes.TrimSpace(head); len(head) == 0 || maybeJSON && len(head) < int(first) {
		switch {
		case len(text) == 0:
			return r, nil
		case json.Valid(text) && !strict.TooDeep(text):
			return jobs.Result{Value: json.RawMessage(text)}, nil
		case mediaType != "":
			a.t.Log(jobs.LevelWarn, "the answer is not the JSON that it says it is; it is kept as a file")
		}
	}
	return r, a.keep(ctx, io.MultiReader(bytes.NewReader(head), body))
}

// readSome reads at most n bytes of a body that has about expected ones; -1 = unknown.
func readSome(body io.Reader, n, expected int64) ([]byte, error) {
	var b bytes.Buffer
	if expected >= 0 {
		b.Grow(int(min(n, expected)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(&io.LimitedReader{R: body, N: n})
	return b.Bytes(), err
}

// mediaType is the type of the answer, without parameters; "" if it says none.
func (a *answer) mediaType() string {
	text := a.Header.Get("Content-Type")
	if text == "application/json" {
		return text
	}
	t, _, err := mime.ParseMediaType(text)
	if err != nil {
		t, _, _ = strings.Cut(text, ";")
	}
	return strings.ToLower(strings.TrimSpace(t))
}

// keep makes the body a file of the job.
func (a *answer) keep(ctx context.Context, body io.Reader) error {
	f, err := a.t.Artifact()
	if err != nil {
		return err
	}
	defer f.Abort()
	src := &noting{r: body}
	if _, err := io.Copy(f, src); err != nil {
		if src.err != nil {
			return a.broken(ctx, src.err)
		}
		return fmt.Errorf("the answer cannot be stored: %w", err)
	}
	contentType := clean(a.Header.Get("Content-Type"))
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	_, err = f.Commit(a.name(), contentType)
	return err
}

// name is the name of the file: what the answer says, or the end of its address.
func (a *answer) name() string {
	if _, params, err := mime.ParseMediaType(a.Header.Get("Content-Disposition")); err == nil && params["filename"] != "" {
		return params["filename"]
	}
	if name := path.Base(a.Request.URL.Path); strings.Trim(name, "./") != "" {
		return name
	}
	return "answer"
}

// broken is the error of a body that did not come as a whole, or is too large.
func (a *answer) broken(ctx context.Context, err error) error {
	if errors.Is(err, errTooLarge) {
		return jobs.Permanentf("the answer has more than %d bytes (limits.output)", a.o.Limits.Output)
	}
	return lost(ctx, a.status()+", and then its body broke off", err)
}

var errTooLarge = errors.New("too large")

// bounded reads at most so many bytes; more are an error.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errTooLarge
	}
	return n, err
}

// noting keeps the error of reading, to tell it from one of writing.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	got, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return got, err
}
