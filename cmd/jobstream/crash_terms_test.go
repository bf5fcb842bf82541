package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// The special jobs of the crash tests: delays, batches, idempotency, unique and
// concurrency keys, cancels, retries by hand, snoozes, a paused type. All of it must
// survive every kill.

// perKey is how many "keyed" jobs of one key may run at once.
const perKey = 2

// termsChild adds the types and handlers of such jobs to the server under test.
func termsChild(cfg *config.Config, dir string, note func(*jobs.Task)) (map[string]jobs.Handler, error) {
	turns, err := os.OpenFile(filepath.Join(dir, "turns"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	turn := func(what string, t *jobs.Task) {
		_, _ = fmt.Fprintf(turns, "%s %s %d %s\n", what, t.Job.Terms.ConcurrencyKey, os.Getpid(), t.Job.ID)
	}
	backoff := jobs.Backoff{Kind: jobs.Constant, Base: 50 * time.Millisecond}
	for name, perKey := range map[string]int{"keyed": perKey, "second": 1, "dozing": 1} {
		cfg.Jobs[name] = config.JobType{Run: name, RetryCount: 3, Timeout: time.Minute, ConcurrencyPerKey: perKey, Backoff: backoff}
	}
	cfg.Jobs[cappedType] = config.JobType{Run: "slow", RetryCount: 3, Timeout: time.Minute, MaxWorkers: perType, Backoff: backoff}
	cfg.Jobs["parked"] = config.JobType{Run: "quick", RetryCount: 3, Timeout: time.Minute, Backoff: backoff}
	return map[string]jobs.Handler{
		"keyed": jobs.HandlerFunc(func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			turn("begin", t)
			defer turn("end", t)
			select {
			case <-time.After(20 * time.Millisecond): // its work is to take time
			case <-ctx.Done():
				return jobs.Result{}, ctx.Err()
			}
			if t.Attempt == 1 && t.Job.ID[15]%4 == 0 {
				return jobs.Result{}, errors.New("not yet") // it loses its turn and gets another one
			}
			return jobs.Result{}, nil
		}),
		"second": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			if t.Job.Run == 1 {
				return jobs.Result{}, jobs.Permanent(errors.New("only by hand"))
			}
			return jobs.Result{}, nil
		}),
		"dozing": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			if !slices.ContainsFunc(t.Job.History, func(h jobs.HistoryEntry) bool { return h.Kind == jobs.KindSnoozed }) {
				return jobs.Result{}, jobs.Snooze(200*time.Millisecond, "a nap")
			}
			note(t)
			return jobs.Result{}, nil
		}),
	}, nil
}

// terms are what a promise says beyond that the job is there.
type terms struct {
	want  []string  // how it may end
	after time.Time // before when it must not start
	runs  int       // how often it may have ended
}

func (p *terms) verify(t *testing.T, j *jobs.Job, told map[string]bool) {
	t.Helper()
	if !slices.Contains(p.want, j.Status.String()) {
		t.Errorf("%s job %s is %s, not %s: %s", j.Type, j.ID, j.Status, strings.Join(p.want, " or "), j.Error)
	}
	if j.StartedAt != 0 && j.StartedAt.Std().Before(p.after) {
		t.Errorf("%s job %s began %s before its time", j.Type, j.ID, p.after.Sub(j.StartedAt.Std()))
	}
	if last := fmt.Sprintf("%s.%s.%d", j.ID, j.Status, j.Run); !told[last] || len(told) != j.Run || j.Run > max(p.runs, 1) {
		t.Errorf("%s job %s is %s in run %d, and was notified as %v", j.Type, j.ID, j.Status, j.Run, told)
	}
}

// termsTally is what is known of groups of jobs, by their tags.
type termsTally struct {
	mu      sync.Mutex
	once    map[string]string // what an idempotency key's jobs have as tag → the promised job, "" = none
	batches map[string]batch
	parked  string // a job of the paused type, "" if it is not paused yet
}

type batch struct {
	size     int
	promised bool
}

// termsClient asks for jobs with terms.
type termsClient struct {
	c        *child
	http     *http.Client
	rng      *rand.Rand
	promised *acked
}

// loadAll is load with jobs that have terms among the others.
func loadAll(ctx context.Context, c *child, seed uint64, promised *acked) {
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	wg.Go(func() { load(ctx, c, seed, promised) })
	for w := range 4 {
		wg.Go(func() {
			l := &termsClient{c: c, http: client, rng: rand.New(rand.NewPCG(seed, uint64(100+w))), promised: promised}
			all := []func(context.Context){l.scheduled, l.batch, l.repeated, l.unique, l.cancelled, l.retried, l.keyed, l.keyed, l.dozing, l.parked, l.changed, l.changed}
			for ctx.Err() == nil {
				all[l.rng.IntN(len(all))](ctx)
			}
		})
	}
	wg.Wait()
}

func (l *termsClient) post(ctx context.Context, path, key, body string) (code int, id string, answer []byte) {
	return l.ask(ctx, http.MethodPost, path, key, body)
}

// ask asks for something; code 0 = there was no answer.
func (l *termsClient) ask(ctx context.Context, method, path, key, body string) (code int, id string, answer []byte) {
	req, err := http.NewRequestWithContext(ctx, method, l.c.rest+path, strings.NewReader(body))
	if err != nil {
		return 0, "", nil
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, "", nil
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return 0, "", nil
	}
	id, _ = idIn(answer)
	return resp.StatusCode, id, answer
}

func (l *termsClient) promise(id, kind string, more *terms) {
	l.promised.add(promise{id: id, kind: kind, more: more})
}

func (l *termsClient) scheduled(ctx context.Context) {
	delay := time.Duration(1+l.rng.IntN(3000)) * time.Millisecond
	after := time.Now().Add(delay)
	if code, id, _ := l.post(ctx, "/jobs", "", fmt.Sprintf(`{"type":"quick","delay":%q}`, delay)); code == http.StatusAccepted {
		l.promise(id, "quick", &terms{want: []string{"completed"}, after: after})
	}
}

// changed changes a job that waits again and again, until it has started.
func (l *termsClient) changed(ctx context.Context) {
	typ := []string{"quick", "keyed"}[l.rng.IntN(2)]
	body := fmt.Sprintf(`{"type":%q,"concurrency_key":"tenant-9","delay":"%dms"}`, typ, l.rng.IntN(2)*l.rng.IntN(2000))
	code, id, _ := l.post(ctx, "/jobs", "", body)
	if code != http.StatusAccepted {
		return
	}
	l.promise(id, typ, &terms{want: []string{"completed"}})
	for code = http.StatusOK; code/100 == 2; {
		change := fmt.Sprintf(`{"priority":%d,"tags":["t%d"]}`, 1+l.rng.IntN(5), l.rng.IntN(10))
		if l.rng.IntN(3) == 0 {
			change = fmt.Sprintf(`{"run_at":%q}`, time.Now().Add(time.Duration(l.rng.IntN(500))*time.Millisecond).UTC().Format(time.RFC3339Nano))
		}
		if code, _, _ = l.ask(ctx, http.MethodPatch, "/jobs/"+id, "", change); l.rng.IntN(3) == 0 {
			code, _, _ = l.post(ctx, "/jobs/"+id+"/run", "", "")
		}
	}
}

func (l *termsClient) dozing(ctx context.Context) {
	if code, id, _ := l.post(ctx, "/jobs", "", `{"type":"dozing"}`); code == http.StatusAccepted {
		l.promise(id, "dozing", &terms{want: []string{"completed"}})
	}
}

func (l *termsClient) keyed(ctx context.Context) {
	body := fmt.Sprintf(`{"type":"keyed","concurrency_key":"tenant-%d","priority":%d}`, l.rng.IntN(3), 1+l.rng.IntN(5))
	if code, id, _ := l.post(ctx, "/jobs", "", body); code == http.StatusAccepted {
		l.promise(id, "keyed", &terms{want: []string{"completed"}})
	}
}

// batch submits some jobs at once; those that were not answered count as well.
func (l *termsClient) batch(ctx context.Context) {
	size, tag := 2+l.rng.IntN(30), fmt.Sprintf("batch-%x", l.rng.Uint64())
	all := make([]string, size)
	for i := range all {
		all[i] = fmt.Sprintf(`{"type":"quick","tags":[%q],"priority":%d,"delay":%d}`, tag, 1+i%5, i%2)
	}
	l.tally(func(t *termsTally) { t.batches[tag] = batch{size: size} })
	code, _, answer := l.post(ctx, "/jobs/batch", "", `{"jobs":[`+strings.Join(all, ",")+`]}`)
	var made struct{ Jobs []struct{ ID string } }
	if code != http.StatusAccepted || json.Unmarshal(answer, &made) != nil || len(made.Jobs) != size {
		return
	}
	l.tally(func(t *termsTally) { t.batches[tag] = batch{size, true} })
	for _, j := range made.Jobs {
		l.promise(j.ID, "quick", &terms{want: []string{"completed"}})
	}
}

func (l *termsClient) tally(f func(*termsTally)) {
	t := &l.promised.terms
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.once == nil {
		t.once, t.batches = make(map[string]string), make(map[string]batch)
	}
	f(t)
}

// repeated asks for the same job twice, now or in another life of the server: the
// same key gives the same job.
func (l *termsClient) repeated(ctx context.Context) {
	tag := fmt.Sprintf("once-%x", l.rng.Uint64())
	if l.rng.IntN(2) == 0 {
		l.tally(func(t *termsTally) {
			for old := range t.once { // any
				tag = old
				break
			}
		})
	}
	l.tally(func(t *termsTally) { t.once[tag] += "" })
	for range 1 + l.rng.IntN(2) {
		code, id, _ := l.post(ctx, "/jobs", tag, fmt.Sprintf(`{"type":"quick","tags":[%q]}`, tag))
		if code != http.StatusAccepted {
			return
		}
		before := ""
		l.tally(func(t *termsTally) { before, t.once[tag] = t.once[tag], id })
		switch before {
		case "":
			l.promise(id, "quick", &terms{want: []string{"completed"}})
		case id:
		default:
			l.promise(id, "quick", &terms{want: []string{"a second job for one idempotency key, besides " + before}})
		}
	}
}

// uniqueKeys are so few that most submissions meet another one.
const uniqueKeys = 3

func (l *termsClient) unique(ctx context.Context) {
	key := fmt.Sprintf("unique-%d", l.rng.IntN(uniqueKeys))
	code, id, _ := l.post(ctx, "/jobs", "", fmt.Sprintf(`{"type":"slow","unique_key":%q,"tags":[%q]}`, key, key))
	if code == http.StatusAccepted {
		l.promise(id, "slow", &terms{want: []string{"completed"}})
	}
}

// cancelled submits a job and cancels it, at some time of its life.
func (l *termsClient) cancelled(ctx context.Context) {
	body := [...]string{`{"type":"slow"}`, `{"type":"slow","delay":1}`, `{"type":"flaky"}`, `{"type":"dozing"}`}[l.rng.IntN(4)]
	code, id, _ := l.post(ctx, "/jobs", "", body)
	if code != http.StatusAccepted {
		return
	}
	select {
	case <-time.After(time.Duration(l.rng.IntN(300)) * time.Millisecond): // so that it may have begun
	case <-ctx.Done():
	}
	more := &terms{want: []string{"completed", "cancelled"}}
	switch code, _, _ := l.post(ctx, "/jobs/"+id+"/cancel", "", ""); code {
	case http.StatusAccepted:
		more.want = []string{"cancelled"}
	case http.StatusConflict:
		more.want = []string{"completed"}
	}
	l.promise(id, "slow", more)
}

// retried submits a job that fails and retries it by hand.
func (l *termsClient) retried(ctx context.Context) {
	code, id, _ := l.post(ctx, "/jobs", "", `{"type":"second"}`)
	if code != http.StatusAccepted {
		return
	}
	more := &terms{want: []string{"failed"}}
	if l.get(ctx, "/jobs/"+id+"?wait=5s") == "failed" {
		switch code, _, _ := l.post(ctx, "/jobs/"+id+"/retry", "", ""); code {
		case http.StatusAccepted:
			more = &terms{want: []string{"completed"}, runs: 2}
		case 0, http.StatusServiceUnavailable:
			more = &terms{want: []string{"failed", "completed"}, runs: 2}
		}
	}
	l.promise(id, "second", more)
}

// get reads the status of a job, "" if there is no answer.
func (l *termsClient) get(ctx context.Context, path string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.c.rest+path, nil)
	if err != nil {
		return ""
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	var j struct{ Status string }
	if json.NewDecoder(resp.Body).Decode(&j) != nil {
		return ""
	}
	return j.Status
}

// parked submits a job of a type that is paused from the first such job on.
func (l *termsClient) parked(ctx context.Context) {
	paused := false
	l.tally(func(t *termsTally) { paused = t.parked != "" })
	if !paused {
		if code, _, _ := l.post(ctx, "/types/parked/pause", "", ""); code != http.StatusOK {
			return
		}
	}
	if code, id, _ := l.post(ctx, "/jobs", "", `{"type":"parked","priority":1}`); code == http.StatusAccepted {
		l.tally(func(t *termsTally) { t.parked = cmp.Or(t.parked, id) })
		l.promise(id, "parked", &terms{want: []string{"completed"}})
	}
}

// checkParked checks that what was paused still is.
func checkParked(t *testing.T, c *child, promised *acked) {
	t.Helper()
	promised.terms.mu.Lock()
	id := promised.terms.parked
	promised.terms.mu.Unlock()
	if id == "" {
		return
	}
	var typ struct{ Paused bool }
	if code := get(t, c.rest+"/types/parked", &typ); code != http.StatusOK || !typ.Paused {
		t.Errorf("a paused type is not paused any more: %d, %+v", code, typ)
	}
	var j jobs.Job
	if get(t, c.rest+"/jobs/"+id, &j); j.Status != jobs.Pending || j.StartedAt != 0 {
		t.Errorf("a job of a paused type is %s, started at %s", j.Status, j.StartedAt)
	}
}

// resumeParked lets the jobs of the paused type go on.
func resumeParked(t *testing.T, c *child, promised *acked) {
	t.Helper()
	checkParked(t, c, promised)
	if promised.terms.parked != "" {
		mustPost(t, c, "/types/parked/resume", "", http.StatusOK)
	}
}

func mustPost(t *testing.T, c *child, path, body string, want int) {
	t.Helper()
	l := &termsClient{c: c, http: http.DefaultClient}
	if code, _, answer := l.post(t.Context(), path, "", body); code != want {
		t.Fatalf("POST %s answers %d, not %d: %s", path, code, want, answer)
	}
}

// tagged are all jobs with a tag, oldest first.
func tagged(t *testing.T, c *child, tag string) (all []*jobs.Job) {
	t.Helper()
	for from := ""; ; {
		var page struct {
			Jobs       []*jobs.Job
			NextCursor string `json:"next_cursor"`
		}
		if code := get(t, c.rest+"/jobs?order=asc&limit=500&tag="+tag+from, &page); code != http.StatusOK {
			t.Fatalf("jobs with tag %s: %d", tag, code)
		}
		all = append(all, page.Jobs...)
		if page.NextCursor == "" {
			return all
		}
		from = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}

// verifyTerms checks what holds for several jobs together.
func verifyTerms(t *testing.T, c *child, dir string, promised *acked) {
	t.Helper()
	tally := &promised.terms
	for tag, b := range tally.batches {
		if n := len(tagged(t, c, tag)); n != b.size && (n != 0 || b.promised) {
			t.Errorf("of a batch of %d there are %d jobs; promised: %v", b.size, n, b.promised)
		}
	}
	for tag, id := range tally.once {
		if all := tagged(t, c, tag); len(all) > 1 || id != "" && (len(all) != 1 || all[0].ID.String() != id) {
			t.Errorf("for one idempotency key there are %d jobs; promised: %q", len(all), id)
		}
	}
	accepted := 0
	for k := range uniqueKeys {
		key := fmt.Sprintf("unique-%d", k)
		accepted += verifyUnique(t, tagged(t, c, key))
		if accepted > 0 { // there was such a load
			mustPost(t, c, "/jobs", fmt.Sprintf(`{"type":"quick","unique_key":%q}`, key), http.StatusAccepted)
		}
	}
	t.Logf("%d batches, %d idempotency keys, %d jobs with a unique key", len(tally.batches), len(tally.once), accepted)
	checkTurns(t, filepath.Join(dir, "turns"))
}

// verifyUnique checks that of the jobs with one unique key each began after the
// one before it had ended. Those that were read after a kill, when nobody waited
// for their answer any more, may have failed because the key was taken.
func verifyUnique(t *testing.T, all []*jobs.Job) (accepted int) {
	t.Helper()
	var before *jobs.Job
	for _, j := range all {
		if j.Status == jobs.Failed && j.Attempt == 0 && strings.Contains(j.Error, "has the unique key") {
			continue
		}
		accepted++
		if before != nil && j.StartedAt < before.EndedAt {
			t.Errorf("two unfinished jobs had one unique key: %s ended at %s, %s began at %s", before.ID, before.EndedAt, j.ID, j.StartedAt)
		}
		before = j
	}
	return accepted
}

// checkTurns checks that within the life of one process no more jobs of a key ran
// at once than may.
func checkTurns(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	running := make(map[string]int)
	most := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		words := strings.Fields(sc.Text())
		if len(words) != 4 {
			continue // cut off by a kill
		}
		key := words[1] + " " + words[2]
		if _, err := strconv.Atoi(words[2]); err != nil {
			t.Fatalf("%s has %q", file, sc.Text())
		}
		if words[0] == "end" {
			running[key]--
			continue
		}
		running[key]++
		if most = max(most, running[key]); running[key] > perKey {
			t.Errorf("%d jobs of %s ran at once", running[key], words[1])
		}
	}
	t.Logf("at most %d jobs of one concurrency key ran at once", most)
}
