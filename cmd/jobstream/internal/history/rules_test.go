package history

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// at is a moment of the histories below.
func at(ms int) Moment { return Moment(ms) * Moment(time.Millisecond) }

// good is a history with something for each rule, and without a problem: b is killed
// at 2,500 while it runs job 3, which runs again on c.
func good() *History {
	return &History{
		Asks: []Ask{
			{What: Submit, Door: "a", Begin: at(100), End: at(110), Code: 202, Name: "n1", Job: "1", Run: 1, Status: "pending"},
			{What: Submit, Door: "b", Begin: at(100), End: at(115), Code: 202, Name: "n2", Job: "2", Idempotent: "i", Run: 1, Status: "pending"},
			{What: Submit, Door: "c", Begin: at(105), End: at(125), Code: 202, Name: "n2", Job: "2", Idempotent: "i", Run: 1, Status: "pending"},
			{What: Submit, Door: "a", Begin: at(120), End: at(130), Code: 202, Name: "n3", Job: "3", Unique: "u", Run: 1, Status: "pending"},
			{What: Submit, Door: "c", Begin: at(125), End: at(140), Code: 409, Name: "n4", Job: "3", Unique: "u"},
			{What: Submit, Door: "b", Begin: at(2400), End: Never, Name: "n5", Unique: "u"},
			{What: Submit, Door: "a", Begin: at(3050), End: at(3060), Code: 202, Name: "n6", Job: "6", Unique: "u", Run: 1, Status: "pending"},
			{What: Submit, Door: "a", Begin: at(3050), End: at(3060), Code: 503, Name: "n7"},
			{What: Submit, Door: "a", Begin: at(3050), End: at(3060), Code: 202, Name: "n8", Job: "8", Batch: "b1", NotBefore: at(3500), Run: 1, Status: "scheduled"},
			{What: Submit, Door: "a", Begin: at(3050), End: at(3060), Code: 202, Name: "n9", Job: "9", Batch: "b1", Run: 1, Status: "pending"},
			{What: Read, Door: "c", Begin: at(150), End: at(160), Code: 200, Job: "1", Run: 1, Status: "processing"},
			{What: Read, Door: "a", Begin: at(3000), End: at(3010), Code: 200, Job: "1", Run: 1, Status: "failed"},
			{What: Retry, Door: "a", Begin: at(3010), End: at(3020), Code: 202, Job: "1", Run: 2, Status: "pending"},
			{What: Read, Door: "a", Begin: at(3030), End: at(3040), Code: 200, Job: "1", Run: 2, Status: "pending"},
			{What: Pause, Door: "a", Begin: at(10), End: at(20), Code: 200, Name: "t", Yes: true},
			{What: Paused, Door: "b", Begin: at(30), End: at(40), Code: 200, Name: "t", Yes: true},
			{What: Resume, Door: "b", Begin: at(2450), End: Never, Name: "t"},
			{What: Paused, Door: "c", Begin: at(3030), End: at(3040), Code: 200, Name: "t"},
		},
		Runs: []Run{
			{Job: "1", Run: 1, Attempt: 1, Node: "a", Life: "a1", Begin: at(200), End: at(210)},
			{Job: "1", Run: 1, Attempt: 2, Node: "a", Life: "a1", Begin: at(300), End: at(310)},
			{Job: "1", Run: 2, Attempt: 1, Node: "a", Life: "a1", Begin: at(3100), End: at(3110)},
			{Job: "2", Run: 1, Attempt: 1, Node: "a", Life: "a1", Begin: at(200), End: at(250), Key: "k"},
			{Job: "3", Run: 1, Attempt: 1, Node: "b", Life: "b1", Begin: at(2000), End: Never, Key: "k"},
			{Job: "3", Run: 1, Attempt: 1, Node: "c", Life: "c1", Begin: at(2600), End: at(2700), Key: "k"},
			{Job: "6", Run: 1, Attempt: 1, Node: "c", Life: "c1", Begin: at(3100), End: at(3200), Key: "k"},
			{Job: "5", Run: 1, Attempt: 1, Node: "c", Life: "c1", Begin: at(2750), End: at(2760)},
			{Job: "8", Run: 1, Attempt: 1, Node: "c", Life: "c1", Begin: at(3500), End: at(3510)},
		},
		Faults: []Fault{{Node: "b", What: "kill", Dead: true, From: at(2500), To: at(4000)}},
		Jobs: []Job{
			{ID: "1", Name: "n1", Status: "completed", Run: 2, Attempt: 1, Most: 2, Ended: at(3111)},
			{ID: "2", Name: "n2", Status: "completed", Run: 1, Attempt: 1, Most: 1, Idempotent: "i", Ended: at(251)},
			{ID: "3", Name: "n3", Status: "completed", Run: 1, Attempt: 1, Most: 1, Unique: "u", Ended: at(2701)},
			{ID: "5", Name: "n5", Status: "completed", Run: 1, Attempt: 1, Most: 1, Unique: "u", Ended: at(2761)},
			{ID: "6", Name: "n6", Status: "cancelled", Run: 1, Attempt: 1, Most: 1, Unique: "u", Ended: at(3201)},
			{ID: "8", Name: "n8", Status: "completed", Run: 1, Attempt: 1, Most: 2, Ended: at(3511), Steady: true},
			{ID: "9", Name: "n9", Status: "cancelled", Run: 1, Attempt: 0, Most: 2, Ended: at(3511), Steady: true},
			{ID: "s1", Status: "completed", Run: 1, Ended: at(1100), Schedule: "tick", For: at(1000)},
			{ID: "s2", Status: "completed", Run: 1, Ended: at(3100), Schedule: "tick", For: at(3000)},
			{ID: "s3", Status: "completed", Run: 1, Ended: at(4100), Schedule: "tick", For: at(4000)},
		},
		Notices: []Notice{
			{"s1", "completed", 1},
			{"s2", "completed", 1},
			{"s3", "completed", 1},
			{"1", "failed", 1},
			{"1", "completed", 2},
			{"2", "completed", 1},
			{"3", "completed", 1},
			{"3", "completed", 1},
			{"5", "completed", 1},
			{"6", "cancelled", 1},
			{"8", "completed", 1},
			{"9", "cancelled", 1},
		},
		Heard: []Heard{{Notice{"8", "completed", 1}, "b", at(3520)}},
		Streams: []Stream{{Name: "x", Ends: map[Notice]bool{
			{"s1", "completed", 1}: true, {"s2", "completed", 1}: true, {"s3", "completed", 1}: true, {"1", "completed", 2}: true, {"2", "completed", 1}: true,
			{"3", "completed", 1}: true, {"5", "completed", 1}: true, {"6", "cancelled", 1}: true, {"8", "completed", 1}: true, {"9", "cancelled", 1}: true,
		}}},
		AtOnce: map[string]int{"k": 1},
		Every:  map[string]time.Duration{"tick": time.Second},
	}
}

func TestNoProblem(t *testing.T) {
	if got := good().Problems(); len(got) > 0 {
		t.Errorf("a good history has problems: %s", strings.Join(got, "\n"))
	}
}

// TestPlantedFaults plants one fault in a good history at a time: its rule must find it.
func TestPlantedFaults(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(h *History)
		finds string
	}{
		"a 202 is lost": {func(h *History) { h.drop("2") }, "job 2 (n2) was accepted by b and is lost"},
		"a 202 is not found for a while": {func(h *History) {
			h.Asks = append(h.Asks, Ask{What: Read, Door: "c", Begin: at(131), End: at(135), Code: 404, Job: "3"})
		}, "job 3 was accepted, and c did not find it 1ms later"},
		"a job is listed twice": {func(h *History) { h.Jobs = append(h.Jobs, h.Jobs[0]) }, "lists job 1 twice"},
		"a submission makes two jobs": {func(h *History) {
			h.add(Job{ID: "19", Name: "n1", Status: "completed", Run: 1})
		}, "submission n1 made two jobs, 1 and 19"},
		"a refused submission makes a job": {func(h *History) {
			h.add(Job{ID: "19", Name: "n7", Status: "completed", Run: 1})
		}, "submission n7 was refused at a with 503, for job \"\", and made job 19"},
		"half a batch is made": {func(h *History) {
			h.Asks[9].Code, h.Asks[9].End = 0, Never
			h.drop("9")
		}, "the batch b1 of 2 submissions made 1 jobs"},
		"a delayed job begins too early": {func(h *History) { h.Runs[8].Begin = at(3400) }, "job 8 began on c 100ms too early"},
		"a fault uses an attempt up":     {func(h *History) { h.Runs[8].Attempt = 2 }, "job 8, which never fails, began attempt 2 on c"},
		"what was heard is not there": {func(h *History) {
			h.Asks = append(h.Asks, Ask{What: Read, Door: "c", Begin: at(3530), End: at(3540), Code: 200, Job: "8", Run: 1, Status: "processing"})
		}, "job 8 was completed by a notification at b, and is processing by c later"},
		"a stream leaves an end out": {func(h *History) { delete(h.Streams[0].Ends, Notice{"8", "completed", 1}) }, "the stream x does not tell that job 8 is completed in run 1"},
		"a stream has the wrong end": {func(h *History) {
			delete(h.Streams[0].Ends, Notice{"1", "completed", 2})
			h.Streams[0].Ends[Notice{"1", "failed", 1}] = true
		}, "the stream x does not tell that job 1 is completed in run 2"},
		"a stream says it has a gap": {func(h *History) { h.Streams[0].Skipped = []Skip{{at(1000), "too_old"}} }, "the stream x has left something out: too_old"},
		"a job never ends":           {func(h *History) { h.Jobs[1].Status = "processing" }, "job 2 is processing at the end"},
		"a job ends twice": {func(h *History) {
			h.Notices = append(h.Notices, Notice{"2", "failed", 1})
		}, "run 1 of job 2 ended twice"},
		"an end is taken back": {func(h *History) {
			h.Asks = append(h.Asks,
				Ask{What: Read, Door: "a", Begin: at(260), End: at(270), Code: 200, Job: "2", Run: 1, Status: "completed"},
				Ask{What: Read, Door: "c", Begin: at(280), End: at(290), Code: 200, Job: "2", Run: 1, Status: "processing"})
		}, "job 2 was completed by a, and is processing by c later"},
		"an ended job runs again": {func(h *History) {
			h.Asks = append(h.Asks, Ask{What: Read, Door: "a", Begin: at(2510), End: at(2520), Code: 200, Job: "3", Run: 1, Status: "completed"})
		}, "job 3 was completed by a, and c began to run it 80ms later"},
		"a cancelled job runs": {func(h *History) {
			h.Asks = append(h.Asks, Ask{What: Read, Door: "a", Begin: at(2080), End: at(2090), Code: 200, Job: "6", Run: 1, Status: "cancelled"})
		}, "job 6 was cancelled by a, and c began to run it 1.01s later"},
		"an attempt is repeated": {func(h *History) {
			h.Runs = append(h.Runs, Run{Job: "2", Run: 1, Attempt: 1, Node: "c", Life: "c1", Begin: at(300), End: at(310)})
		}, "attempt 1 of job 2 ran on a and again on c"},
		"an attempt is repeated, and the fault was another node's": {func(h *History) {
			h.Faults[0].Node = "c"
		}, "attempt 1 of job 3 ran on b and again on c"},
		"too many attempts":  {func(h *History) { h.Runs[1].Attempt = 3 }, "job 1 has run 3 attempts of 2"},
		"an unknown job ran": {func(h *History) { h.drop("5") }, "job 5 ran on c, and nobody knows it"},
		"two runs overlap": {func(h *History) {
			h.Runs = append(h.Runs, Run{Job: "1", Run: 1, Attempt: 2, Node: "c", Life: "c1", Begin: at(305), End: at(320)})
		}, "job 1 ran twice at one time: on a (attempt 2) and, 5ms later, on c (attempt 2)"},
		"the dead one's run was taken over too early": {func(h *History) { h.Runs[5].Begin = at(2490) }, "job 3 ran twice at one time"},
		"one that was asked to end ran on beside the next": {func(h *History) {
			h.Runs[4].End = at(2650)
			h.Faults[0].Gentle = true
		}, "job 3 ran twice at one time"},
		"too many of a concurrency key": {func(h *History) { h.Runs[6].Begin = at(2650) }, "2 jobs of k ran at a time, 1 may"},
		"an end is not told":            {func(h *History) { h.Notices = h.Notices[:len(h.Notices)-1] }, "nobody was told that job 9 is cancelled"},
		"an idempotency key has two jobs": {func(h *History) {
			h.Asks[2].Job = "19"
			h.add(Job{ID: "19", Idempotent: "i", Status: "completed", Run: 1})
		}, "idempotency key i: no order explains it"},
		"an idempotency key has a second job that nobody was told of": {func(h *History) {
			h.add(Job{ID: "19", Idempotent: "i", Status: "completed", Run: 1})
		}, "idempotency key i: no order explains it"},
		"a unique key is given twice": {func(h *History) {
			h.Asks[4].Code, h.Asks[4].Job = 202, "4"
			h.add(Job{ID: "4", Name: "n4", Unique: "u", Status: "completed", Run: 1, Ended: at(2701)})
		}, "unique key u: no order explains it"},
		"a unique key is held after the end": {func(h *History) {
			h.Asks[6].Code, h.Asks[6].Job = 409, "3"
			h.Asks = append(h.Asks, Ask{What: Read, Door: "a", Begin: at(2710), End: at(2720), Code: 200, Job: "3", Run: 1, Status: "completed"})
			h.drop("6")
			h.Runs = slices.DeleteFunc(h.Runs, func(r Run) bool { return r.Job == "6" })
		}, "unique key u: no order explains it"},
		"a unique key is free before the end": {func(h *History) { h.Jobs[2].Ended = at(3070) }, "unique key u: no order explains it"},
		"a moment has two jobs": {func(h *History) {
			h.add(Job{ID: "s4", Status: "completed", Run: 1, Schedule: "tick", For: at(3000)})
		}, "made jobs s2 and s4 for one moment"},
		"a moment is left out": {func(h *History) {
			h.add(Job{ID: "s4", Status: "completed", Run: 1, Schedule: "tick", For: at(30_000)})
			h.add(Job{ID: "s5", Status: "completed", Run: 1, Schedule: "tick", For: at(32_000)})
		}, "made jobs s4 and s5, and none for 2s between"},
		"a schedule is forgotten": {func(h *History) { h.Every["other"] = time.Second }, "the schedule other has never made a job"},
		"a pause is forgotten": {func(h *History) {
			h.Asks[15].Yes = false
		}, "pauses of the type t: no order explains it"},
		"a pause is read from the past": {func(h *History) {
			h.Asks = append(h.Asks, Ask{What: Paused, Door: "a", Begin: at(3050), End: at(3060), Code: 200, Name: "t", Yes: true})
		}, "pauses of the type t: no order explains it"},
	} {
		h := good()
		c.plant(h)
		got := h.Problems()
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, c.finds) }) {
			t.Errorf("%s: %q is not found; found are %q", name, c.finds, got)
		}
	}
}

// drop removes a job from what the tracker shows.
func (h *History) drop(id string) {
	h.Jobs = slices.DeleteFunc(h.Jobs, func(j Job) bool { return j.ID == id })
}

// add adds a job that ends as it should.
func (h *History) add(j Job) {
	h.Jobs = append(h.Jobs, j)
	h.Notices = append(h.Notices, Notice{j.ID, j.Status, j.Run})
}

func TestGap(t *testing.T) {
	h := good()
	if gap, began := h.Gap("", at(0), at(4000)); gap != 2930*time.Millisecond || began != at(130) {
		t.Errorf("the longest gap is %s from %d", gap, began)
	}
	h.Asks = append(h.Asks, Ask{What: Submit, Door: "b", Begin: at(4300), End: at(4310), Code: 202})
	if gap, began := h.DoorGap("b", at(100), at(5000), 200*time.Millisecond); gap != 2385*time.Millisecond || began != at(115) {
		t.Errorf("the longest gap of a door whose node was down is %s from %d", gap, began)
	}
	if gap, began := h.DoorGap("c", at(0), at(200), 0); gap != 125*time.Millisecond || began != 0 {
		t.Errorf("the longest gap of a door whose node was up is %s from %d", gap, began)
	}
	if gap, began := h.Gap("c", at(0), at(200)); gap != 125*time.Millisecond || began != 0 {
		t.Errorf("the longest gap of a door is %s from %d", gap, began)
	}
}
