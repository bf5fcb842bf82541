package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// ofArtifact is the input of the operation artifact.get.
type ofArtifact struct {
	ofJob
	file string // its name
}

func readArtifactPath(r Request) (q ofArtifact, err error) {
	if err := noQuery(r); err != nil {
		return q, err
	}
	q.file = r.Param("name")
	q.ofJob, err = readPathID(r)
	return q, err
}

// artifacts is the answer with the files of a job, without their content.
type artifacts []jobs.Artifact

func (all artifacts) AppendJSON(b []byte) []byte {
	b = append(b, `{"artifacts":[`...)
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = jobs.AppendFieldsJSON(b, jobs.ArtifactFields, &all[i])
	}
	return append(b, "]}"...)
}

var artifactListDoc = form.Doc{
	Summary: "List the files that a job has left",
	Answer:  form.Object(form.Need("artifacts", form.List(artifactForm, 0, 0), "in the order in which they were made")),
}

func listArtifacts(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.look(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: artifacts(filesOf(j))}, nil
}

// filesOf are the files that a job has left. Those of an execution that has not ended may
// never be the job's.
func filesOf(j *jobs.Job) []jobs.Artifact {
	if j.Status == jobs.Processing {
		return nil
	}
	return j.Files()
}

var resultDoc = form.Doc{
	Summary: "Get the first file that a job has left",
	Text:    "With ranges (RFC 9110) and ETag.",
	Answer:  fileContent, Others: partOfFile,
	Codes: []jobs.ErrorKind{jobs.NoArtifact},
}

// The answers with a file, whose own type it has.
var (
	fileContent = form.Content{"*/*"}
	partOfFile  = map[int]any{206: fileContent, 304: nil, 412: form.Problem{jobs.InvalidRequest}, 416: form.Problem{jobs.InvalidRequest}}
)

// result is the answer with the first file of a job.
func result(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.look(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	if j.Artifact == nil || j.Status == jobs.Processing {
		return Answer{}, &jobs.Error{Kind: jobs.NoArtifact, Detail: fmt.Sprintf("job %s has left no file; it is %s", j.ID, j.Status)}
	}
	return c.file(j, j.Artifact)
}

var artifactGetDoc = form.Doc{
	Summary: "Get a file that a job has left",
	Text:    "Of files with the same name it is the last one. With ranges (RFC 9110) and ETag.",
	Answer:  fileContent, Others: partOfFile,
	Codes: []jobs.ErrorKind{jobs.NoArtifact},
}

// getArtifact is the answer with a file of a job. Of files with the same name the last
// one counts, because it was made last.
func getArtifact(ctx context.Context, c Call, q ofArtifact) (Answer, error) {
	j, err := c.look(ctx, q.ofJob)
	if err != nil {
		return Answer{}, err
	}
	all := filesOf(j)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name == q.file {
			return c.file(j, &all[i])
		}
	}
	return Answer{}, &jobs.Error{Kind: jobs.NoArtifact, Detail: fmt.Sprintf("job %s has left no file %s; it is %s and has left %d", j.ID, jobs.Quote(q.file), j.Status, len(all))}
}

// file is the answer with a file of a job, which a door sends.
func (c Call) file(j *jobs.Job, a *jobs.Artifact) (Answer, error) {
	content, err := c.Artifacts.Open(j.ID, a)
	if errors.Is(err, fs.ErrNotExist) {
		return Answer{}, &jobs.Error{Kind: jobs.NoArtifact, Detail: fmt.Sprintf("the file %s of job %s has been deleted", jobs.Quote(a.Name), j.ID)}
	}
	if err != nil {
		return Answer{}, err
	}
	info, err := content.Stat()
	if err == nil && info.Size() != a.Size {
		err = fmt.Errorf("the file %s of job %s has %d bytes, its record says %d; restore it or run the job again", jobs.Quote(a.Name), j.ID, info.Size(), a.Size)
	}
	if err != nil {
		return Answer{}, errors.Join(err, content.Close())
	}
	return Answer{File: &File{j.ID, a, content, info.ModTime()}}, nil
}
