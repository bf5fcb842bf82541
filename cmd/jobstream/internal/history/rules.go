package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// usualUnstored is how long an end may not be stored yet in a server that is alone.
const usualUnstored = 2 * time.Second

// Problems is what must not be in the history. There is a method for each rule.
func (h *History) Problems() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := &view{History: h, jobs: make(map[string]*Job, len(h.Jobs)), runs: make(map[string][]*Run)}
	for i := range h.Jobs {
		j := &h.Jobs[i]
		if v.jobs[j.ID] != nil {
			v.fail("the tracker lists job %s twice", j.ID)
		}
		v.jobs[j.ID] = j
	}
	slices.SortFunc(h.Asks, func(a, b Ask) int { return cmp.Compare(a.Begin, b.Begin) })
	slices.SortFunc(h.Runs, func(a, b Run) int { return cmp.Compare(a.Begin, b.Begin) })
	for i := range h.Runs {
		r := &h.Runs[i]
		if r.End == Never {
			r.End = v.death(r)
		}
		v.runs[r.Job] = append(v.runs[r.Job], r)
	}
	v.accepted()
	v.once()
	v.whole()
	v.delays()
	v.ends()
	v.attempts()
	v.overlaps()
	v.caps()
	v.notices()
	v.streams()
	v.idempotent()
	v.unique()
	v.pauses()
	v.schedules()
	return v.problems
}

// view is a history with its parts by name.
type view struct {
	*History
	jobs     map[string]*Job
	runs     map[string][]*Run // by job, in the order of their begins
	problems []string
}

func (v *view) fail(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// death is when the process of a run that did not come to its end ended.
func (v *view) death(r *Run) Moment {
	at := Never
	for _, f := range v.Faults {
		if f.Dead && f.hits(r.Node) && f.From >= r.Begin {
			at = min(at, f.From)
		}
	}
	return at
}

func (f *Fault) hits(node string) bool { return f.Node == "" || f.Node == node }

// inFlight says whether a fault of its node came upon a run, or upon its end.
func (v *view) inFlight(r *Run) bool {
	return slices.ContainsFunc(v.Faults, func(f Fault) bool {
		return f.hits(r.Node) && r.Begin <= f.To && r.End.Add(cmp.Or(v.Unstored, usualUnstored)) >= f.From
	})
}

// accepted: whatever was promised by a 202 is there, at the end and whenever it is asked
// for after the answer.
func (v *view) accepted() {
	promised := make(map[string]Moment)
	for i := range v.Asks {
		a := &v.Asks[i]
		if a.What != Submit || a.Code != 202 {
			continue
		}
		if at, ok := promised[a.Job]; !ok || a.End < at {
			promised[a.Job] = a.End
		}
		if v.jobs[a.Job] == nil {
			v.fail("job %s (%s) was accepted by %s and is lost", a.Job, a.Name, a.Door)
		}
	}
	for i := range v.Asks {
		a := &v.Asks[i]
		if at, ok := promised[a.Job]; ok && a.Job != "" && a.Code == 404 && a.Begin > at {
			v.fail("job %s was accepted, and %s did not find it %s later", a.Job, a.Door, a.Begin.Sub(at))
		}
	}
}

// once: a submission makes one job at most, and none if it was refused.
func (v *view) once() {
	refused := make(map[string]*Ask) // the last answer to a submission that none accepted
	for i := range v.Asks {
		a := &v.Asks[i]
		if a.What != Submit {
			continue
		}
		if before, ok := refused[a.Name]; a.answered() || a.Code == 0 || a.Unsure || ok && before == nil {
			refused[a.Name] = nil
		} else {
			refused[a.Name] = a
		}
	}
	made := make(map[string]*Job)
	for i := range v.Jobs {
		j := &v.Jobs[i]
		if j.Name == "" || j.NeverRan {
			continue
		}
		if first := made[j.Name]; first != nil {
			v.fail("submission %s made two jobs, %s and %s", j.Name, first.ID, j.ID)
		}
		made[j.Name] = j
		if a := refused[j.Name]; a != nil {
			v.fail("submission %s was refused at %s with %d, for job %q, and made job %s", j.Name, a.Door, a.Code, a.Job, j.ID)
		}
	}
}

// whole: a request that submits several jobs makes all of them or none.
func (v *view) whole() {
	made := make(map[string]bool, len(v.Jobs))
	for i := range v.Jobs {
		made[v.Jobs[i].Name] = true
	}
	all := make(map[string]map[string]bool) // the names of each batch
	for i := range v.Asks {
		if a := &v.Asks[i]; a.Batch != "" {
			if all[a.Batch] == nil {
				all[a.Batch] = make(map[string]bool)
			}
			all[a.Batch][a.Name] = true
		}
	}
	for _, batch := range slices.Sorted(maps.Keys(all)) {
		n := 0
		for name := range all[batch] {
			if made[name] {
				n++
			}
		}
		if n > 0 && n < len(all[batch]) {
			v.fail("the batch %s of %d submissions made %d jobs", batch, len(all[batch]), n)
		}
	}
}

// delays: no job begins before its time.
func (v *view) delays() {
	for i := range v.Asks {
		a := &v.Asks[i]
		if all := v.runs[a.Job]; a.NotBefore > 0 && len(all) > 0 && all[0].Begin < a.NotBefore {
			v.fail("job %s began on %s %s too early", a.Job, all[0].Node, a.NotBefore.Sub(all[0].Begin))
		}
	}
}

var ended = map[string]bool{"completed": true, "failed": true, "cancelled": true}

// Ahead is how long before its handler begins a job may be leased. It counts as begun then,
// so a cancellation may come too late to keep it from its handler.
const Ahead = time.Second

// ends: every job ends, once in each of its runs, and what was seen of an end stays.
func (v *view) ends() {
	for i := range v.Jobs {
		if j := &v.Jobs[i]; !ended[j.Status] {
			v.fail("job %s is %s at the end", j.ID, j.Status)
		}
	}
	type run struct {
		job string
		run int
	}
	type seen struct {
		status string
		at     Moment
		door   string
	}
	first := make(map[run]seen)
	note := func(job string, n int, status string, at Moment, door string) {
		if !ended[status] {
			return
		}
		k := run{job, n}
		before, ok := first[k]
		switch {
		case ok && before.status != status:
			v.fail("run %d of job %s ended twice: %s by %s, %s by %s", n, job, before.status, before.door, status, door)
		case !ok || at < before.at:
			first[k] = seen{status, at, door}
		}
	}
	for i := range v.Asks {
		a := &v.Asks[i]
		if a.answered() && a.Run > 0 {
			note(a.Job, a.Run, a.Status, a.End, a.Door)
		}
	}
	for _, n := range v.Heard {
		note(n.Job, n.Run, n.Status, n.At, "a notification at "+n.Door)
	}
	for _, n := range v.Notices {
		note(n.Job, n.Run, n.Status, Never, "a notification")
	}
	for i := range v.Jobs {
		j := &v.Jobs[i]
		note(j.ID, j.Run, j.Status, Never, "the tracker at the end")
	}
	for i := range v.Asks {
		a := &v.Asks[i]
		if s, ok := first[run{a.Job, a.Run}]; ok && a.What == Read && a.answered() && a.Begin > s.at && !ended[a.Status] {
			v.fail("job %s was %s by %s, and is %s by %s later", a.Job, s.status, s.door, a.Status, a.Door)
		}
	}
	for i := range v.Runs {
		r := &v.Runs[i]
		s, ok := first[run{r.Job, r.Run}]
		if late := r.Begin.Sub(s.at); ok && late > 0 && (s.status != "cancelled" || late > Ahead) {
			v.fail("job %s was %s by %s, and %s began to run it %s later", r.Job, s.status, s.door, r.Node, r.Begin.Sub(s.at))
		}
	}
}

// attempts: an attempt begins again only if a fault came upon it, no job has more attempts
// than it may have, and a fault uses none up.
func (v *view) attempts() {
	for _, id := range slices.Sorted(maps.Keys(v.runs)) {
		last := make(map[[2]int]*Run)
		for _, r := range v.runs[id] {
			k := [2]int{r.Run, r.Attempt}
			if before := last[k]; before != nil && !v.inFlight(before) {
				v.fail("attempt %d of job %s ran on %s and again on %s %s later, without a fault of the first", r.Attempt, id, before.Node, r.Node, r.Begin.Sub(before.Begin))
			}
			last[k] = r
			if j := v.jobs[id]; j != nil && j.Most > 0 && r.Attempt > j.Most {
				v.fail("job %s has run %d attempts of %d", id, r.Attempt, j.Most)
			} else if j != nil && j.Steady && r.Attempt > 1 {
				v.fail("job %s, which never fails, began attempt %d on %s", id, r.Attempt, r.Node)
			}
		}
		if v.jobs[id] == nil {
			v.fail("job %s ran on %s, and nobody knows it", id, v.runs[id][0].Node)
		}
	}
}

// lives is when a run ends at the latest as far as the rest of the world may know:
// whoever is frozen or cut off is taken for dead.
func (v *view) lives(r *Run) Moment {
	until := r.End
	for _, f := range v.Faults {
		if f.hits(r.Node) && !f.Gentle && f.To >= r.Begin {
			until = min(until, max(f.From, r.Begin))
		}
	}
	return until
}

// overlaps: no two runs of a job at one time while the nodes of both live.
func (v *view) overlaps() {
	for _, id := range slices.Sorted(maps.Keys(v.runs)) {
		all := v.runs[id]
		for i, r := range all {
			for _, o := range all[i+1:] {
				if o.Begin < v.lives(r) && v.lives(o) > o.Begin {
					v.fail("job %s ran twice at one time: on %s (attempt %d) and, %s later, on %s (attempt %d)", id, r.Node, r.Attempt, o.Begin.Sub(r.Begin), o.Node, o.Attempt)
				}
			}
		}
	}
}

// caps: no more jobs of a concurrency key, or of a type, run at a time than may.
func (v *view) caps() {
	running := make(map[string][]*Run)
	for i := range v.Runs {
		r := &v.Runs[i]
		if r.Key == "" || v.lives(r) <= r.Begin {
			continue
		}
		all := slices.DeleteFunc(running[r.Key], func(o *Run) bool { return v.lives(o) <= r.Begin })
		all = append(all, r)
		running[r.Key] = all
		if most := v.AtOnce[r.Key]; most > 0 && len(all) > most {
			v.fail("%d jobs of %s ran at a time, %d may: %s began on %s", len(all), r.Key, most, r.Job, r.Node)
		}
	}
}

// notices: each end is told.
func (v *view) notices() {
	told := make(map[Notice]bool, len(v.Notices))
	for _, n := range v.Notices {
		told[n] = true
	}
	for i := range v.Jobs {
		j := &v.Jobs[i]
		if n := (Notice{j.ID, j.Status, j.Run}); ended[j.Status] && !told[n] {
			v.fail("nobody was told that job %s is %s in run %d", j.ID, j.Status, j.Run)
		}
	}
}

// streams: whoever follows all changes hears of each job's last end, and is told of gaps
// in an outage only: a node that is behind the one before does not know how much it lacks.
func (v *view) streams() {
	for _, s := range v.Streams {
		for _, skip := range s.Skipped {
			if !slices.ContainsFunc(v.Faults, func(f Fault) bool { return f.From <= skip.At && f.To.Add(Outage) >= skip.At }) {
				v.fail("the stream %s has left something out: %s", s.Name, skip.Says)
			}
		}
		for i := range v.Jobs {
			j := &v.Jobs[i]
			if ended[j.Status] && !s.Ends[Notice{j.ID, j.Status, j.Run}] {
				v.fail("the stream %s does not tell that job %s is %s in run %d", s.Name, j.ID, j.Status, j.Run)
			}
		}
	}
}

// steps collects the steps of registers by their names.
type steps map[string][]Step

// judge judges each register by itself.
func (v *view) judge(what string, all steps) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if why := Linearizable(all[name]); why != "" {
			v.fail("%s %s: %s", what, name, why)
		}
	}
}

// unanswered are the jobs that submissions without an answer have made, by the key that
// of takes from a job.
func (v *view) unanswered(of func(*Job) string) (all []*Job) {
	known := make(map[string]bool)
	for i := range v.Asks {
		if a := &v.Asks[i]; a.What == Submit && a.Code == 202 {
			known[a.Job] = true
		}
	}
	for i := range v.Jobs {
		if j := &v.Jobs[i]; of(j) != "" && !known[j.ID] && !j.NeverRan {
			all = append(all, j)
		}
	}
	return all
}

// asked is when the submission of a job was first asked for.
func (v *view) asked(j *Job) (at Moment) {
	at = Never
	for i := range v.Asks {
		if a := &v.Asks[i]; a.What == Submit && a.Name == j.Name {
			at = min(at, a.Begin)
		}
	}
	if at == Never {
		return 0
	}
	return at
}

// idempotent: an idempotency key is a register that the first submission sets to its
// job, for ever; all others find that job.
func (v *view) idempotent() {
	all := make(steps)
	for i := range v.Asks {
		a := &v.Asks[i]
		if a.What != Submit || a.Idempotent == "" || a.Code != 202 {
			continue
		}
		all[a.Idempotent] = append(all[a.Idempotent], Step{
			Begin: a.Begin, End: a.End, Ways: []Way{{From: "", To: a.Job}, {From: a.Job, To: a.Job}},
			Says: fmt.Sprintf("%s answered with job %s", a.Door, a.Job),
		})
	}
	for _, j := range v.unanswered(func(j *Job) string { return j.Idempotent }) {
		all[j.Idempotent] = append(all[j.Idempotent], Step{
			Begin: v.asked(j), End: Never, Ways: []Way{{From: "", To: j.ID}},
			Says: fmt.Sprintf("job %s was made, without an answer", j.ID),
		})
	}
	v.judge("idempotency key", all)
}

// unique: a unique key is a register. A submission that is accepted finds it empty and
// sets it to its job, one that is refused finds the job that the refusal names, and the
// end of a job empties it.
func (v *view) unique() {
	all := make(steps)
	seen := make(map[string]Moment) // when somebody first saw the end of a job
	holders := make(map[string]bool)
	for i := range v.Asks {
		a := &v.Asks[i]
		if at, ok := seen[a.Job]; a.answered() && ended[a.Status] && (!ok || a.End < at) {
			seen[a.Job] = a.End
		}
		if a.What != Submit || a.Unique == "" {
			continue
		}
		switch {
		case a.Code == 202 && a.Idempotent == "":
			holders[a.Job] = true
			all[a.Unique] = append(all[a.Unique], Step{
				Begin: a.Begin, End: a.End, Ways: []Way{{From: "", To: a.Job}},
				Says: fmt.Sprintf("%s accepted job %s", a.Door, a.Job),
			})
		case a.Code == 409 && a.Job != "":
			all[a.Unique] = append(all[a.Unique], Step{
				Begin: a.Begin, End: a.End, Ways: []Way{{From: a.Job, To: a.Job}},
				Says: fmt.Sprintf("%s refused, since job %s has the key", a.Door, a.Job),
			})
		}
	}
	for _, j := range v.unanswered(func(j *Job) string { return j.Unique }) {
		holders[j.ID] = true
		all[j.Unique] = append(all[j.Unique], Step{
			Begin: v.asked(j), End: Never, Ways: []Way{{From: "", To: j.ID}},
			Says: fmt.Sprintf("job %s was made, without an answer", j.ID),
		})
	}
	for i := range v.Jobs {
		j := &v.Jobs[i]
		if j.Unique == "" || !holders[j.ID] || !ended[j.Status] {
			continue
		}
		s := Step{Begin: j.Ended, End: Never, Ways: []Way{{From: j.ID, To: ""}}, Says: fmt.Sprintf("job %s ended, %s", j.ID, j.Status)}
		if at, ok := seen[j.ID]; ok {
			s.End = at
		}
		all[j.Unique] = append(all[j.Unique], s)
	}
	v.judge("unique key", all)
}

// pauses: whether a type is paused is a register, which everybody reads and writes.
func (v *view) pauses() {
	all := make(steps)
	value := map[bool]string{true: "paused"}
	for i := range v.Asks {
		a := &v.Asks[i]
		s := Step{Begin: a.Begin, End: a.End, Says: fmt.Sprintf("%s %s: %d, %v", a.Door, a.What, a.Code, a.Yes)}
		switch {
		case a.What == Paused && a.answered():
			s.Ways = []Way{{From: value[a.Yes], To: value[a.Yes]}}
		case (a.What == Pause || a.What == Resume) && (a.answered() || a.Code == 0 || a.Unsure):
			s.Ways = []Way{{Any: true, To: value[a.What == Pause]}}
			if !a.answered() {
				s.Maybe, s.End = true, Never
			}
		default:
			continue
		}
		all[a.Name] = append(all[a.Name], s)
	}
	v.judge("pauses of the type", all)
}

// Outage is how long after the end of a fault a cluster may be without a leader.
const Outage = 20 * time.Second

// schedules: no moment of a schedule makes two jobs, and none is left out but those of an
// outage, of which the last one is made up for.
func (v *view) schedules() {
	fired := make(map[string][]*Job)
	for i := range v.Jobs {
		if j := &v.Jobs[i]; j.Schedule != "" {
			fired[j.Schedule] = append(fired[j.Schedule], j)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Every)) {
		all := fired[name]
		slices.SortFunc(all, func(a, b *Job) int { return cmp.Compare(a.For, b.For) })
		if len(all) == 0 {
			v.fail("the schedule %s has never made a job", name)
		}
		for i := 1; i < len(all); i++ {
			from, to := all[i-1].For, all[i].For
			switch {
			case from == to:
				v.fail("the schedule %s made jobs %s and %s for one moment", name, all[i-1].ID, all[i].ID)
			case to.Sub(from) > v.Every[name] && !slices.ContainsFunc(v.Faults, func(f Fault) bool { return f.From <= to && f.To.Add(Outage) >= from }):
				v.fail("the schedule %s made jobs %s and %s, and none for %s between", name, all[i-1].ID, all[i].ID, to.Sub(from))
			}
		}
	}
}

// DoorGap is the longest time between two submissions that a leader has accepted through
// one door, while nothing was wrong with its node, with when it began. A fault of a node is
// over only a moment later than what ended it.
func (h *History) DoorGap(door string, from, to Moment, after time.Duration) (gap time.Duration, began Moment) {
	h.mu.Lock()
	faults := slices.Clone(h.Faults)
	h.mu.Unlock()
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.From, b.From) })
	longest := func(from, to Moment) {
		if from >= to {
			return
		}
		if d, at := h.Gap(door, from, to); d > gap {
			gap, began = d, at
		}
	}
	for _, f := range faults {
		if f.hits(door) {
			longest(from, min(f.From, to))
			from = max(from, f.To.Add(after))
		}
	}
	longest(from, to)
	return gap, began
}

// Gap is the longest time between two submissions that were accepted by a leader, from the
// first moment to the last, with when it began. If door is not empty, it is that door's.
func (h *History) Gap(door string, from, to Moment) (gap time.Duration, began Moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ends := []Moment{from, to}
	for i := range h.Asks {
		if a := &h.Asks[i]; a.What == Submit && a.Code == 202 && !a.Bare && a.End >= from && a.End <= to && (door == "" || a.Door == door) {
			ends = append(ends, a.End)
		}
	}
	slices.Sort(ends)
	for i := range ends[1:] {
		if d := ends[i+1].Sub(ends[i]); d > gap {
			gap, began = d, ends[i]
		}
	}
	return gap, began
}
