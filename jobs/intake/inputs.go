package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"jobstream/jobs"
)

// Inputs are the files that jobs get. Each is in a folder and described in the tracker,
// which knows when nobody needs it any more. The file is on disk before its description.
type Inputs struct {
	files  *jobs.ArtifactDir // of jobs' own files
	dir    *jobs.ArtifactDir // of inputs
	ledger InputLedger
	room   Room
	now    func() jobs.Time
}

// InputLedger is the tracker, as far as Inputs need it.
type InputLedger interface {
	jobs.Doer
	// Input describes the file of an input; nil if there is none.
	Input(id jobs.ID) (*jobs.Artifact, error)
	// Job finds a job by its id; nil if there is none.
	Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// OldestInput is the earliest moment since which no job has had an input; 0 if all
	// have one.
	OldestInput() (jobs.Time, error)
}

// NewInputs makes the inputs of jobs, in a folder of files. Uploads end when there is no
// more room.
func NewInputs(files *jobs.ArtifactDir, l InputLedger, r Room) *Inputs {
	return &Inputs{files: files, dir: files.Inputs(), ledger: l, room: r, now: jobs.Now}
}

// stamp signs the commands about inputs.
func (in *Inputs) stamp() jobs.Stamp { return jobs.Stamp{Actor: "inputs", At: in.now()} }

// Upload is what a client says about the file that it uploads.
type Upload struct {
	Name        string // for people; see [jobs.ArtifactName]
	ContentType string
	SHA256      string // in hex, in lower case; "" = not said
}

// Uploaded is an upload that is on disk.
type Uploaded struct {
	ID      jobs.ID
	File    jobs.Artifact
	Expires jobs.Time // unless a job gets it before
}

// Upload stores a file for jobs to come. It is durable when Upload returns. An
// [*jobs.Error] of kind [jobs.StorageFull] or [jobs.Unavailable] says that there is no room
// for it. Errors of the reader are returned as they are.
func (in *Inputs) Upload(ctx context.Context, content io.Reader, u Upload) (*Uploaded, error) {
	if err := in.room.Check(); err != nil {
		return nil, err
	}
	id := jobs.NewID()
	w, err := in.dir.Create(id)
	if err != nil {
		return nil, noRoom(err)
	}
	defer w.Abort()
	if _, err := io.Copy(&bounded{Writer: w, room: in.room}, content); err != nil {
		return nil, noRoom(err)
	}
	file, err := w.Commit(jobs.ArtifactName(u.Name), jobs.Shorten(u.ContentType, jobs.MaxArtifactName))
	if err == nil && u.SHA256 != "" && u.SHA256 != file.SHA256 {
		err = jobs.Invalid("query/sha256", fmt.Sprintf("is not that of the content, which has %d bytes and the SHA-256 %s", file.Size, file.SHA256))
	}
	if err == nil {
		err = in.dir.Protect(id, file)
	}
	var at jobs.Time
	if err == nil {
		at, err = in.keep(ctx, id, file)
	}
	if err != nil {
		return nil, noRoom(in.discard(id, err))
	}
	return &Uploaded{ID: id, File: *file, Expires: at.Add(jobs.InputTime)}, nil
}

// roomEvery is how many bytes of an upload are written between two looks at the room.
const roomEvery = 1 << 20

// bounded is a writer that fails when there is no more room.
type bounded struct {
	io.Writer
	room    Room
	written int // since the last look
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.written += len(p); b.written >= roomEvery {
		b.written = 0
		if err := b.room.Check(); err != nil {
			return 0, err
		}
	}
	return b.Writer.Write(p)
}

// keep makes the tracker know a file that is on disk.
func (in *Inputs) keep(ctx context.Context, id jobs.ID, file *jobs.Artifact) (at jobs.Time, err error) {
	c := jobs.KeepInput{Stamp: in.stamp(), ID: id, File: *file}
	if _, err = in.ledger.Do(context.WithoutCancel(ctx), c); err != nil { // a client that leaves now does no harm
		err = refusalOf(err)
	}
	return c.At, err
}

// discard removes a file that the tracker does not know, because of err.
func (in *Inputs) discard(id jobs.ID, err error) error {
	_, failed := in.dir.Remove(id) // a file that remains goes with the next start
	return errors.Join(err, failed)
}

// noRoom makes an error for the caller of one that says that the disk is full.
func noRoom(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &jobs.Error{Kind: jobs.StorageFull, Detail: "the disk of the server is full: " + err.Error()}
	}
	return err
}

// resolve finds the files of a submission's inputs, of which it has some, and checks them. at is the pointer of
// the submission. The result replaces its terms, which stay as they are.
func (in *Inputs) resolve(ctx context.Context, s *jobs.Submission, t *jobs.Type, at string) (*jobs.Terms, error) {
	switch {
	case in == nil:
		return nil, jobs.Invalid(at+"/inputs", "cannot be used: this server keeps no files")
	case t == nil:
		return nil, jobs.Invalid(at+"/type", "was removed from the configuration at this moment")
	}
	terms := *s.Terms
	terms.Inputs = make([]jobs.Input, len(s.Inputs()))
	var wrong []jobs.FieldError
	for i, given := range s.Inputs() {
		problem, err := in.find(ctx, &given, t)
		if err != nil {
			return nil, err
		}
		if problem != nil {
			wrong = append(wrong, jobs.FieldError{Pointer: at + problem.Pointer, Detail: problem.Detail})
		}
		terms.Inputs[i] = given
	}
	if len(wrong) > 0 {
		return nil, jobs.InvalidFields(wrong...)
	}
	return &terms, nil
}

// find describes the file of an input, or returns the problem with it. A file of another
// job becomes an input of its own, so that it stays when that job is deleted.
func (in *Inputs) find(ctx context.Context, given *jobs.Input, t *jobs.Type) (*jobs.FieldError, error) {
	pointer := "/inputs/" + given.Name
	if given.ID != (jobs.ID{}) {
		file, err := in.ledger.Input(given.ID)
		if err != nil {
			return nil, err
		}
		if file == nil {
			return &jobs.FieldError{Pointer: pointer, Detail: jobs.NoInput(given.ID)}, nil
		}
		given.File = *file
		return t.CheckFile(given), nil
	}
	j, err := in.ledger.Job(ctx, given.Job)
	if err != nil {
		return nil, err
	}
	file, problem := output(j, given)
	if problem == nil {
		given.File = *file
		problem = t.CheckFile(given)
	}
	if problem != nil {
		return problem, nil
	}
	given.ID = jobs.NewID()
	err = in.dir.Link(given.ID, in.files, j.ID, file)
	if errors.Is(err, fs.ErrNotExist) {
		return &jobs.FieldError{Pointer: pointer, Detail: fmt.Sprintf("the file %s of job %s has been deleted", jobs.Quote(file.Name), j.ID)}, nil
	}
	if err == nil {
		_, err = in.keep(ctx, given.ID, file)
	}
	if err != nil {
		return nil, noRoom(in.discard(given.ID, err))
	}
	return nil, nil
}

// output is the file of a job that an input names, or the problem with it. Of files with
// the same name the last one counts.
func output(j *jobs.Job, given *jobs.Input) (*jobs.Artifact, *jobs.FieldError) {
	fail := func(format string, args ...any) (*jobs.Artifact, *jobs.FieldError) {
		return nil, &jobs.FieldError{Pointer: "/inputs/" + given.Name, Detail: fmt.Sprintf(format, args...)}
	}
	if j == nil {
		return fail("%s", jobs.NoJobForInput(given.Job))
	}
	all := j.Files()
	switch {
	case j.Status != jobs.Completed:
		return fail("job %s is %s; only the files of a completed job can be used", j.ID, j.Status)
	case len(all) == 0:
		return fail("job %s has left no file", j.ID)
	case given.File.Name == "":
		return &all[0], nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name == given.File.Name {
			return &all[i], nil
		}
	}
	return fail("job %s has left no file %s", j.ID, jobs.Quote(given.File.Name))
}

// Path is the place of an input's file, which is fetched if only other nodes have it.
func (in *Inputs) Path(given *jobs.Input) (string, error) {
	if err := in.dir.Bring(given.ID, given.File.SHA256); err != nil {
		return "", err
	}
	return filepath.Abs(in.dir.Path(given.ID, &given.File))
}

// Open opens an input's file for reading.
func (in *Inputs) Open(given *jobs.Input) (jobs.ArtifactFile, error) {
	return in.dir.Open(given.ID, &given.File)
}

// dropBatch is how many inputs one transaction drops at most.
const dropBatch = 1000

// Drop removes the files that no job has had for [jobs.InputTime]. It returns their
// number and size in bytes.
func (in *Inputs) Drop(ctx context.Context) (dropped int, freed int64, err error) {
	for {
		c := jobs.DropInputs{Stamp: in.stamp(), Most: dropBatch}
		c.Before = c.At.Add(-jobs.InputTime)
		oldest, err := in.ledger.OldestInput()
		if err != nil || oldest == 0 || oldest >= c.Before {
			return dropped, freed, err
		}
		e, err := in.ledger.Do(ctx, c)
		if err != nil || e.Removed == 0 {
			return dropped, freed, err
		}
		for _, id := range e.Value.([]jobs.ID) {
			size, failed := in.dir.Remove(id)
			err = errors.Join(err, failed)
			dropped, freed = dropped+1, freed+size
		}
		if err != nil { // what remains goes with the next start
			return dropped, freed, err
		}
	}
}

// Sweep removes files that the tracker does not know: a process died between the file and
// its description, or between the end of that and the file's. Call it before any upload,
// with a tracker that has everything from the streams.
func (in *Inputs) Sweep() error {
	all, err := in.dir.IDs()
	for _, id := range all {
		file, failed := in.ledger.Input(id)
		if failed == nil && file == nil {
			_, failed = in.dir.Remove(id)
		}
		err = errors.Join(err, failed)
	}
	return err
}
