package status

import "jobstream/jobs"

// Submissions may have three kinds of keys: idempotency tokens, unique keys and
// concurrency keys. The first two decide whether a submission becomes a job, at the
// place where its record would be made. So of any number of equal ones in any order
// exactly one becomes a job. A repeated fold decides the same.

// decideByKeys says whether the keys of a message, or a missing input, keep it from
// becoming a job. If so, it has answered whoever submitted it. With a refusal the message becomes a job that has
// failed for that reason.
func (f *fold) decideByKeys(m *jobs.Message) (answered bool, refusal *jobs.Error, err error) {
	if m.Token != nil {
		if answered, err := f.replayed(m); answered || err != nil {
			return answered, nil, err
		}
	}
	if m.Problem != "" {
		return false, nil, nil
	}
	if refusal = f.inputs.missing(m.Terms, ""); refusal == nil {
		refusal, err = f.taken(m)
	}
	if refusal == nil || err != nil {
		return false, nil, err
	}
	if m.Checked {
		f.answer(jobs.Answer{Kind: jobs.SubmissionRefused, ID: m.ID, Err: refusal})
		return true, nil, nil
	}
	return false, refusal, nil // nobody waits for an answer: the record says it
}

// taken is the refusal of a message whose unique key another job has; nil if there is
// none.
func (f *fold) taken(m *jobs.Message) (*jobs.Error, error) {
	key := uniqueKey(m.CreatedBy, m.Terms)
	if key == "" {
		return nil, nil
	}
	owner, err := f.unique.owner(key)
	if err != nil || owner == (jobs.ID{}) || owner == m.ID {
		return nil, err
	}
	return duplicate(key, owner), nil
}

// replayed says whether the token of a message is known. If so, it has answered whoever
// submitted it.
func (f *fold) replayed(m *jobs.Message) (answered bool, err error) {
	known, err := f.tokens.recall(m.Token, m.At)
	if wrong, ok := asRefusal(err); ok {
		f.answer(jobs.Answer{Kind: jobs.SubmissionRefused, ID: m.ID, Err: wrong})
		return true, nil
	}
	if err != nil || known == nil {
		return false, err
	}
	j := known[0]
	if j.Key == 0 {
		j = m.Forgotten(j.ID, j.CreatedAt, f.in.registry.Lookup(m.Type))
	} else if err := f.records.alias(m.Seq, j); err != nil {
		return false, err
	}
	f.answer(jobs.Answer{Kind: jobs.SubmissionReplayed, ID: m.ID, Job: j})
	return true, nil
}

// claimKeys stores the keys of a job that was just made of a message.
func (f *fold) claimKeys(j *jobs.Job, m *jobs.Message) error {
	if m.Token != nil {
		if err := f.tokens.remember(m.Token, m.At, []jobs.ID{j.ID}); err != nil {
			return err
		}
	}
	key := uniqueKey(m.CreatedBy, m.Terms)
	switch {
	case key == "":
		return nil
	case j.Status.Ended():
		return f.unique.release(key, j.ID) // its batch had reserved it
	}
	return f.unique.claim(key, j.ID)
}

func asRefusal(err error) (*jobs.Error, bool) {
	if err == nil {
		return nil, false
	}
	e, ok := jobs.AsError(err)
	return e, ok
}
