package status

import "jobstream/jobs"

// refusals are submissions that were refused lately. While a cluster elects, a submission
// is published more than once, and what has refused the first copy may be over when the
// next one is folded.
type refusals struct {
	young, old map[jobs.ID]*jobs.Error // the older half is forgotten as a whole
	since      jobs.Time               // of the young ones
}

// remember keeps what was refused for goneFor at least, as long as there is room.
func (r *refusals) remember(all []jobs.Answer, now jobs.Time) {
	for i := range all {
		if all[i].Kind != jobs.SubmissionRefused {
			continue
		}
		if age := now.Sub(r.since); age < 0 || age > goneFor || r.young == nil {
			r.young, r.old, r.since = make(map[jobs.ID]*jobs.Error), r.young, now
		}
		if len(r.young) < maxGone {
			r.young[all[i].ID] = all[i].Err
		}
	}
}

// of is why a submission was refused, or nil.
func (r *refusals) of(id jobs.ID) *jobs.Error {
	if why := r.young[id]; why != nil {
		return why
	}
	return r.old[id]
}

// answered says whether a message that may be a copy comes too late to make a job: its
// submission was refused, or nobody waits for it. Then it was answered, or whoever led
// before has told that it may never run.
func (f *fold) answered(m *jobs.Message) bool {
	why := f.in.refused.of(m.ID)
	for i := range f.out.Answers {
		if a := &f.out.Answers[i]; a.Kind == jobs.SubmissionRefused && a.ID == m.ID {
			why = a.Err
		}
	}
	if why != nil {
		f.answer(jobs.Answer{Kind: jobs.SubmissionRefused, ID: m.ID, Err: why}) // its answer may have been lost
		return true
	}
	return !m.Checked
}
