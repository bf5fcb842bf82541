package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// slowest is the least speed of a download, in bytes per second. A slower one is cut.
const slowest = 8 << 10

// reportPolicy is for reports that a browser shows. They may have styles and pictures
// of their own, but no scripts, no network, and not the origin of this server.
const reportPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"

// sendFile sends the file of a job, or the requested ranges of it.
func (k *call) sendFile(f *api.File) error {
	defer f.Content.Close() //nolint:errcheck // opened for reading only
	setFileHeaders(k.Response().Header(), f.Artifact, f.ID)
	return k.serveFile(f.Content, f.Modified, f.Artifact.Size)
}

// setFileHeaders describes an artifact.
func setFileHeaders(h http.Header, a *jobs.Artifact, id jobs.ID) {
	contentType := a.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", disposition(contentType, fileName(a.Name, id)))
	h.Set("Content-Security-Policy", reportPolicy)
	h.Set("Cache-Control", "private, no-cache") // ask again each time; the ETag makes that cheap
	if a.SHA256 != "" {
		h.Set("ETag", `"`+a.SHA256+`"`)
	}
}

// disposition lets a browser show HTML, because the policy has made that harmless, and
// makes it store everything else.
func disposition(contentType, name string) string {
	kind := "attachment"
	if media, _, err := mime.ParseMediaType(contentType); err == nil && media == "text/html" {
		kind = "inline"
	}
	if v := mime.FormatMediaType(kind, map[string]string{"filename": name}); v != "" {
		return v
	}
	return kind
}

// fileName is a name that every file system and browser reads as one file in the
// folder of downloads.
func fileName(name string, id jobs.ID) string {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`/:*?"<>|`, r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	name = strings.TrimLeft(name, ".")
	if name == "" || name == "_" {
		return id.String()
	}
	return name
}

// serveFile sends f, or the requested ranges of it.
func (k *call) serveFile(f io.ReadSeeker, modified time.Time, size int64) error {
	// A download may last longer than other answers, but a client may not stall.
	limit := writeTimeout + time.Duration(size/slowest)*time.Second
	control := http.NewResponseController(k.Response().Writer)
	_ = control.SetWriteDeadline(time.Now().Add(limit)) // not all writers have one
	if err := k.bind(func() { _ = control.SetWriteDeadline(past) }); err != nil {
		return err
	}

	k.leave() // the rest costs little but time

	// ServeContent gets net/http's own writer, which can hand the file to the kernel.
	// Echo's cannot, so its counters are set afterwards.
	plainRange(k.Request(), size)
	w := &fileWriter{ResponseWriter: k.Response().Writer}
	http.ServeContent(w, k.Request(), "", modified, f)
	k.Response().Committed, k.Response().Status, k.Response().Size = true, w.status, w.sent
	if k.revoked() != nil {
		cutOff()
	}
	return nil
}

// fileWriter sends the output of ServeContent, but replaces its errors, which are plain
// text, by problems.
type fileWriter struct {
	http.ResponseWriter
	status int
	sent   int64
}

// WriteHeader passes status on. An error gets a problem as its body.
func (w *fileWriter) WriteHeader(status int) {
	w.status = status
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	body := contentProblem(status)
	h := w.Header()
	for _, name := range []string{"Content-Disposition", "Content-Security-Policy", "Etag", "Last-Modified"} {
		h.Del(name) // they describe the file
	}
	h["Content-Type"], h["Cache-Control"] = problemType, noStore
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.ResponseWriter.WriteHeader(status)
	n, _ := w.ResponseWriter.Write(body) // a client that is gone misses nothing
	w.sent = int64(n)
}

// Write sends a piece of the file.
func (w *fileWriter) Write(p []byte) (int, error) {
	if w.status >= http.StatusBadRequest {
		return len(p), nil // the text of an error, replaced above
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// ReadFrom sends a piece of the file. It is not copied through this process where the
// system can avoid that.
func (w *fileWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.status >= http.StatusBadRequest {
		return io.Copy(io.Discard, r)
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent += n
	return n, err
}

// contentProblem is the problem for a status that only files have: for a range outside
// of the file, or a condition that is not met.
func contentProblem(status int) []byte {
	code, detail := jobs.InvalidRequest, "the Range header asks for nothing that the file has; see Content-Range"
	switch {
	case status == http.StatusPreconditionFailed:
		detail = "the file is not the one that If-Match or If-Unmodified-Since speaks of"
	case status >= http.StatusInternalServerError:
		code, detail = jobs.Internal, "the file could not be read"
	}
	b, err := json.Marshal(struct {
		Type   string         `json:"type"`
		Title  string         `json:"title"`
		Status int            `json:"status"`
		Detail string         `json:"detail"`
		Code   jobs.ErrorKind `json:"code"`
	}{"about:blank", http.StatusText(status), status, detail, code})
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return append(b, '\n')
}
