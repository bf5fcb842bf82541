package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"jobstream/jobs"
)

func readAsk(r Request) (*jobs.Ask, error) {
	if err := r.Admits(); err != nil {
		return nil, err
	}
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return ParseAsk(body)
}

// doorTime is how much longer the door waits than an ask. So an ask is over before its
// request is.
const doorTime = 5 * time.Second

func next(ctx context.Context, c Call, a *jobs.Ask) (Answer, error) {
	for _, typ := range a.Types {
		if !c.Caller.MayUse(typ) {
			return Answer{}, c.Caller.onlyTypes("do", typ)
		}
	}
	if a.Wait > 0 {
		waiting, done, err := c.door.Wait(ctx, a.Wait+doorTime)
		if err != nil {
			return Answer{}, err
		}
		defer done()
		ctx = waiting
	}
	a.Gone = c.door.Gone
	all, err := c.Leases.Next(ctx, a)
	return Answer{JSON: leased(all)}, err
}

func readBeat(r Request) (Beat, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return Beat{}, err
	}
	return ParseBeat(body)
}

func beat(ctx context.Context, c Call, b Beat) (Answer, error) {
	now, err := c.Leases.Beat(ctx, b.Worker, b.Leases)
	return Answer{JSON: (*beats)(&now)}, err
}

func progress(ctx context.Context, c Call, r report[jobs.Progress]) (Answer, error) {
	now, err := c.Leases.Progress(ctx, r.lease, &r.of)
	return Answer{JSON: (*beats)(&now)}, err
}

func done(ctx context.Context, c Call, r report[json.RawMessage]) (Answer, error) {
	return endOf(c.Leases.Done(ctx, []jobs.Done{{Token: r.lease, Result: r.of}})[0])
}

func fail(ctx context.Context, c Call, r report[jobs.Failure]) (Answer, error) {
	return endOf(c.Leases.Fail(ctx, r.lease, &r.of))
}

func release(ctx context.Context, c Call, r report[giveBack]) (Answer, error) {
	return endOf(c.Leases.Release(ctx, r.lease, r.of.delay, r.of.reason))
}

func endOf(e jobs.Ending) (Answer, error) { return Answer{JSON: (*ending)(&e)}, e.Err }

func readManyDone(r Request) ([]jobs.Done, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return ParseDone(body)
}

func doneMany(ctx context.Context, c Call, all []jobs.Done) (Answer, error) {
	return Answer{JSON: &endings{all, c.Leases.Done(ctx, all)}}, nil
}

func listWorkers(_ context.Context, c Call, _ nothing) (Answer, error) {
	return Answer{JSON: workers(c.Leases.AtWork())}, nil
}

// leaseFile is a file under a lease.
type leaseFile struct{ lease, name string }

func readLeaseFile(r Request) (leaseFile, error) {
	return leaseFile{r.Param("lease"), r.Param("name")}, noQuery(r)
}

// getInput is the answer with the file of an input.
func getInput(ctx context.Context, c Call, q leaseFile) (Answer, error) {
	j, err := c.Leases.Job(ctx, q.lease)
	if err != nil {
		return Answer{}, err
	}
	for _, in := range j.Inputs() {
		if in.Name == q.name {
			return c.input(j, &in)
		}
	}
	return Answer{}, &jobs.Error{Kind: jobs.NotFound, Detail: fmt.Sprintf("job %s has no input %s", j.ID, jobs.Quote(q.name))}
}

// input is the answer with an input of a job, which a door sends.
func (c Call) input(j *jobs.Job, in *jobs.Input) (Answer, error) {
	content, err := c.Inputs.Open(in)
	if err != nil {
		return Answer{}, err
	}
	info, err := content.Stat()
	if err == nil && info.Size() != in.File.Size {
		err = fmt.Errorf("the input %s of job %s has %d bytes, its record says %d", jobs.Quote(in.Name), j.ID, info.Size(), in.File.Size)
	}
	if err != nil {
		return Answer{}, errors.Join(err, content.Close())
	}
	return Answer{File: &File{in.ID, &in.File, content, info.ModTime()}}, nil
}

// attachment is a file that a worker leaves for its job. Its content is still to come.
type attachment struct {
	leaseFile
	contentType string
	content     io.Reader
}

func readAttachment(r Request) (a attachment, err error) {
	if a.leaseFile, err = readLeaseFile(r); err != nil {
		return a, err
	}
	u, err := ParseUpload(nil, r.Header("Content-Type"), nil)
	if err != nil {
		return a, err
	}
	a.contentType = u.ContentType
	a.content, err = r.Upload()
	return a, err
}

func attach(ctx context.Context, c Call, a attachment) (Answer, error) {
	made, err := c.Leases.Attach(ctx, a.lease, a.name, a.contentType, a.content)
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: attached{made}}, nil
}

// attached is the answer with a file, without its content.
type attached struct{ *jobs.Artifact }

func (a attached) AppendJSON(b []byte) []byte {
	return jobs.AppendFieldsJSON(b, jobs.ArtifactFields, a.Artifact)
}
