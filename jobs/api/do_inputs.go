package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/intake"
)

// incoming is the input of the operation artifact.create. Its content is still to come.
type incoming struct {
	intake.Upload
	content io.Reader
}

var artifactCreateDoc = form.Doc{
	Summary: "Upload a file for jobs",
	Text:    "The body is the file, of any size up to `server.max_upload`, and on disk with the answer. Its `id` can stand in the `inputs` of submissions. One that no job gets is dropped after a day.",
	Query:   queries("sha256"),
	Headers: []form.Param{disposition},
	Body:    form.Content{"*/*"},
	Answer:  uploadedFile{},
	Codes:   []jobs.ErrorKind{jobs.PayloadTooLarge, jobs.StorageFull},
}

func readUpload(r Request) (in incoming, err error) {
	if err = r.Admits(); err != nil {
		return in, err
	}
	query, err := r.Query()
	if err != nil {
		return in, err
	}
	if in.Upload, err = ParseUpload(query, r.Header("Content-Type"), r.Header("Content-Disposition")); err != nil {
		return in, err
	}
	in.content, err = r.Upload()
	return in, err
}

// ParseUpload reads what a request says about the file in its body: sha256 of its query,
// and these two headers. An [*jobs.Error] names every mistake.
func ParseUpload(query url.Values, contentType, disposition []string) (u intake.Upload, err error) {
	var bad []jobs.FieldError
	fail := func(pointer, detail string) {
		bad = append(bad, jobs.FieldError{Pointer: pointer, Detail: detail})
	}
	for name, values := range query {
		switch sum, err := hex.DecodeString(values[0]); {
		case name != "sha256":
			fail("query/"+name, "is not a known parameter; known is sha256")
		case len(values) > 1:
			fail("query/sha256", "is given more than once")
		case err != nil || len(sum) != 32:
			fail("query/sha256", "must be a SHA-256 in hex, 64 digits, not "+jobs.Quote(values[0]))
		default:
			u.SHA256 = strings.ToLower(values[0])
		}
	}
	u.ContentType = "application/octet-stream"
	if len(contentType) > 0 && contentType[0] != "" {
		u.ContentType = contentType[0]
	}
	switch media, _, err := mime.ParseMediaType(u.ContentType); {
	case err != nil || !strings.Contains(media, "/"):
		fail("header/Content-Type", "must be like text/csv, not "+jobs.Quote(u.ContentType))
	case len(u.ContentType) > jobs.MaxArtifactName:
		fail("header/Content-Type", "is too long")
	case strings.HasPrefix(media, "multipart/"):
		fail("header/Content-Type", "is a form; send the file itself as the body, like curl --data-binary @FILE or -T FILE")
	}
	if len(disposition) > 0 && disposition[0] != "" {
		_, of, err := mime.ParseMediaType(disposition[0])
		if err != nil {
			fail("header/Content-Disposition", `must be like attachment; filename="a.csv", not `+jobs.Quote(disposition[0]))
		}
		u.Name = of["filename"]
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b jobs.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
		return u, jobs.InvalidFields(bad...)
	}
	return u, nil
}

func upload(ctx context.Context, c Call, in incoming) (Answer, error) {
	made, err := c.Inputs.Upload(ctx, in.content, in.Upload)
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: uploaded(*made)}, nil
}

// uploaded is the answer to an upload.
type uploaded intake.Uploaded

type uploadedFile struct {
	ID          jobs.ID `json:"id"`
	Name        string  `json:"name"`
	ContentType string  `json:"content_type"`
	Size        int64   `json:"size"`
	SHA256      string  `json:"sha256"`
	ExpiresAt   string  `json:"expires_at"`
}

func (u uploaded) AppendJSON(b []byte) []byte {
	out, err := json.Marshal(uploadedFile{u.ID, u.File.Name, u.File.ContentType, u.File.Size, u.File.SHA256, u.Expires.String()})
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return append(b, out...)
}
