package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
)

// slowest is the slowest download that is let go on, in bytes per second.
const slowest = 8 << 10

// reportPolicy lets a report that is shown in the browser bring its own styles
// and pictures, and nothing else: no script, no network, an origin of its own.
const reportPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"

// result is GET /jobs/{id}/result: the file that the job left.
func (s *Server) result(c echo.Context) error {
	j, err := s.find(c)
	if err != nil {
		return err
	}
	a := j.Artifact
	if a == nil {
		return &jobs.Error{Kind: jobs.NoArtifact, Detail: fmt.Sprintf("job %s has left no file; it is %s", j.ID, j.Status)}
	}
	f, err := s.artifacts.Open(j.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return &jobs.Error{Kind: jobs.NoArtifact, Detail: fmt.Sprintf("the file of job %s has been deleted", j.ID)}
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != a.Size {
		return fmt.Errorf("the file of job %s has %d bytes, its record says %d; restore it or run the job again", j.ID, info.Size(), a.Size)
	}
	setFileHeaders(c.Response().Header(), a, j.ID)
	serveFile(c, f, info.ModTime(), a.Size)
	return nil
}

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

// disposition lets a browser show HTML, which the policy has made harmless, and
// store everything else.
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

// fileName is a name that no file system or browser reads as anything but one
// file in the folder of downloads.
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

// serveFile sends f, or the ranges of it that were asked for.
func serveFile(c echo.Context, f io.ReadSeeker, modified time.Time, size int64) {
	// a download may take longer than other answers; a client that stalls may not
	limit := writeTimeout + time.Duration(size/slowest)*time.Second
	_ = http.NewResponseController(c.Response().Writer).SetWriteDeadline(time.Now().Add(limit)) // not all writers have one

	callOf(c).leave() // the rest costs little but time

	// ServeContent gets net/http's own writer, which can hand the file to the
	// kernel; Echo's can't, so it is told afterwards what went out
	plainRange(c.Request(), size)
	w := &fileWriter{ResponseWriter: c.Response().Writer}
	http.ServeContent(w, c.Request(), "", modified, f)
	c.Response().Committed, c.Response().Status, c.Response().Size = true, w.status, w.sent
}

// fileWriter sends what ServeContent writes, but for its errors, which are plain
// text there and problems here.
type fileWriter struct {
	http.ResponseWriter
	status int
	sent   int64
}

// WriteHeader passes status on, with a problem as the body if it is an error.
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

// ReadFrom sends a piece of the file without copying it through this process,
// where the system can do that.
func (w *fileWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.status >= http.StatusBadRequest {
		return io.Copy(io.Discard, r)
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent += n
	return n, err
}

// contentProblem is the problem for a status that only file answers have: a
// range outside of the file, a condition that does not hold.
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
