package pool

import (
	"errors"

	"jobstream/jobs"
)

// Create begins a file of the job; see [jobs.Host].
func (x *execution) Create() (jobs.ArtifactWriter, error) {
	if x.p.o.Artifacts == nil {
		return nil, errors.New("this server keeps no files of jobs")
	}
	x.filed.Store(true)
	return x.p.o.Artifacts.Create(x.job.ID)
}

// Inputs know the places of inputs.
type Inputs interface {
	// Path is the absolute path of an input's file.
	Path(in *jobs.Input) (string, error)
}

// InputPath is the place of an input; see [jobs.Host].
func (x *execution) InputPath(in *jobs.Input) (string, error) {
	if x.p.o.Inputs == nil {
		return "", errors.New("this server keeps no inputs of jobs")
	}
	return x.p.o.Inputs.Path(in)
}

// tidy removes the files of the job that do not count: all but those that this attempt
// has left by completing the job. An earlier run, or a process that died, may have left
// others. It precedes the record of the outcome, so no later attempt has begun. A file
// that resists goes with its job.
func (x *execution) tidy(files []jobs.Artifact) {
	if x.p.o.Artifacts == nil || !x.filed.Load() && !x.suspect() && x.job.Run <= 1 {
		return
	}
	if err := x.p.o.Artifacts.Keep(x.job.ID, files); err != nil {
		x.p.o.Logger.Warn("files that a job does not need could not be removed; they go with the job", x.logAttr(), "error", err)
	}
}
