package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

// now is a Sunday afternoon.
const now = "2024-01-14T15:30:00Z"

func newHandler(t *testing.T, list ...*jobs.Job) *Handler {
	t.Helper()
	h := New(handlertest.NewTracker(list...))
	at := handlertest.At(t, now)
	h.now = func() jobs.Time { return at }
	return h
}

// run makes a report and returns its result and its page, which the result must
// describe.
func run(t *testing.T, h *Handler, payload string) (Result, string) {
	t.Helper()
	task := handlertest.NewTask(t, payload)
	if err := h.Check(jobs.NewPayload(task.Job.Payload)); err != nil {
		t.Fatalf("Check: %v", err)
	}
	res, err := h.Handle(t.Context(), task.Task)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.CheckProgress(); err != nil {
		t.Error(err)
	}
	file, f := task.Open()
	page, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	v := res.Value.(Result)
	sum := sha256.Sum256(page)
	if v.SHA256 != hex.EncodeToString(sum[:]) || v.Bytes != int64(len(page)) || v.SHA256 != file.SHA256 {
		t.Errorf("the result speaks of another file: %+v", v)
	}
	if want := "/jobs/" + task.Job.ID.String() + "/result"; v.URL != want {
		t.Errorf("url %q, want %q", v.URL, want)
	}
	if file.ContentType != "text/html; charset=utf-8" {
		t.Errorf("content type %q", file.ContentType)
	}
	if name := file.Name; !strings.HasPrefix(name, "report-20") || !strings.HasSuffix(name, ".html") {
		t.Errorf("file name %q", name)
	}
	wellFormed(t, page)
	return v, string(page)
}

// wellFormed checks the page: elements closed in order, unique ids, nothing loaded from
// elsewhere, no scripts.
func wellFormed(t *testing.T, page []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Entity = xml.HTMLEntity
	ids := map[string]bool{}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		el, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if el.Name.Local == "script" || el.Name.Local == "link" || el.Name.Local == "img" {
			t.Errorf("the page has a <%s>", el.Name.Local)
		}
		for _, a := range el.Attr {
			switch {
			case a.Name.Local == "src", a.Name.Local == "href", strings.HasPrefix(a.Name.Local, "on"):
				t.Errorf("<%s> has %s=%q", el.Name.Local, a.Name.Local, a.Value)
			case a.Name.Local == "id" && ids[a.Value]:
				t.Errorf("id %q is there twice", a.Value)
			case a.Name.Local == "id":
				ids[a.Value] = true
			case strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || strings.Contains(a.Value, "ZgotmplZ"):
				t.Errorf("<%s> has %s=%q", el.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
	for _, bad := range []string{"http://", "url(", "@import", "ZgotmplZ", "%!"} {
		if bytes.Contains(page, []byte(bad)) {
			t.Errorf("the page contains %q", bad)
		}
	}
}

// job is an ended job: waited for a wait, ran for a run.
func job(n int, kind string, status jobs.Status, created jobs.Time, wait, run time.Duration, attempts int, failure string) *jobs.Job {
	start := created.Add(wait)
	j := &jobs.Job{
		ID: handlertest.ID(n), Type: kind, Priority: 3, Status: status, Run: 1, Attempt: attempts, MaxAttempts: 4,
		CreatedAt: created, StartedAt: start, EndedAt: start.Add(run), Error: failure,
		History: []jobs.HistoryEntry{{Kind: jobs.KindSubmitted, At: created}, {Kind: jobs.KindStarted, At: start, Attempt: 1}},
	}
	if status == jobs.Failed {
		j.Failures = attempts
	}
	return j
}

func TestFigures(t *testing.T) {
	at := handlertest.At(t, "2024-01-10T12:00:00Z")
	var list []*jobs.Job
	for i := range 95 {
		list = append(list, job(i, "email", jobs.Completed, at.Add(time.Duration(i)*time.Minute), 10*time.Millisecond, time.Duration(i+1)*time.Millisecond, 1, ""))
	}
	for i := range 5 {
		list = append(list, job(100+i, "webhook", jobs.Failed, at.Add(2*time.Hour), 30*time.Millisecond, 2*time.Second, 3, fmt.Sprintf("request %d failed: <b>503</b>", 1000+i)))
	}
	list = append(list, &jobs.Job{ID: handlertest.ID(200), Type: "export", Status: jobs.Pending, CreatedAt: at, Priority: 3})
	list = append(list, &jobs.Job{ID: handlertest.ID(201), Type: "export", Status: jobs.Cancelled, CreatedAt: at, EndedAt: at.Add(time.Hour), Priority: 3})
	list = append(list, job(202, "old", jobs.Completed, handlertest.At(t, "2023-12-31"), 0, time.Hour, 1, ""))

	v, page := run(t, newHandler(t, list...), "")
	want := Result{
		Type: "summary", Records: 102, From: "2024-01-08T00:00:00Z", To: now,
		Completed: 95, Failed: 5, Cancelled: 1, Unfinished: 1, Retries: 10,
		Bytes: v.Bytes, SHA256: v.SHA256, URL: v.URL,
	}
	if *v.SuccessRate != 0.95 {
		t.Errorf("success rate %v, want 0.95", *v.SuccessRate)
	}
	about(t, "median wait", *v.MedianWaitMS, 10)
	about(t, "p95 run time", *v.P95RunMS, 95)
	v.SuccessRate, v.MedianWaitMS, v.P95RunMS = nil, nil, nil
	if v != want {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
	for _, text := range []string{
		"8 – 14 January 2024", "102 jobs of 3 types were submitted", "95.0% of those that ended",
		"Most failures came from webhook: 5 of 5", ">95.0%<", "5 of 100 failed", "by 5 jobs",
		"request … failed: &lt;b&gt;503&lt;/b&gt;", `<span class="num">5×</span>`, handlertest.ID(100).String(),
		"Wed 10 January 2024: 102 jobs (95 completed, 1 unfinished, 1 cancelled, 5 failed)",
		"Jobs by type", "Success rate by type", "Time in the queue", "Run time", "Slowest jobs", "What failed most",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not contain %q", text)
		}
	}
	if strings.Contains(page, "old") && strings.Contains(page, ">old<") {
		t.Error("a job from before the range is on the page")
	}
}

func about(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > want*0.02 {
		t.Errorf("%s: %v, want %v within 2 %%", what, got, want)
	}
}

func TestKindsHaveTheirSections(t *testing.T) {
	list := handlertest.Synthetic(1, 500, handlertest.At(t, now), 5*day)
	headings := []string{"Jobs by day", "Jobs by type", "Success rate by type", "Time in the queue", "Slowest jobs", "What failed most"}
	for _, c := range []struct {
		kind string
		has  []int
	}{
		{"summary", []int{0, 1, 2, 3, 4, 5}},
		{"performance", []int{0, 1, 3, 4}},
		{"failures", []int{0, 2, 5}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			_, page := run(t, newHandler(t, list...), `{"type":"`+c.kind+`"}`)
			for i, h := range headings {
				if got, want := strings.Contains(page, ">"+h+"</h2>"), slices.Contains(c.has, i); got != want {
					t.Errorf("%q is there: %v, want %v", h, got, want)
				}
			}
		})
	}
}

func TestEmptyRange(t *testing.T) {
	for _, payload := range []string{"", "null", "{}", `{"date_range":"all"}`, `{"date_range":"2031"}`, `{"date_range":{"from":"2030-01-01"}}`, `{"date_range":{"to":"2020"}}`} {
		t.Run(payload, func(t *testing.T) {
			v, page := run(t, newHandler(t), payload)
			if v.Records != 0 || v.SuccessRate != nil || v.MedianWaitMS != nil || v.P95RunMS != nil {
				t.Errorf("got %+v", v)
			}
			if !strings.Contains(page, "No jobs in this range") || strings.Contains(page, "<dl") {
				t.Error("the page does not say that there is nothing")
			}
		})
	}
}

func TestItsOwnJobIsLeftOut(t *testing.T) {
	h := newHandler(t)
	task := handlertest.NewTask(t, "")
	task.Job.CreatedAt = handlertest.At(t, "2024-01-14T15:29:59Z")
	h.history = handlertest.NewTracker(task.Job)
	res, err := h.Handle(t.Context(), task.Task)
	if err != nil || res.Value.(Result).Records != 0 {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestForeignTextIsEscaped(t *testing.T) {
	evil := `</title><script>alert("1")</script>'"&`
	at := handlertest.At(t, "2024-01-14T10:00:00Z")
	_, page := run(t, newHandler(t, job(1, evil, jobs.Failed, at, 0, time.Second, 1, evil+"\x00\xff")), "")
	if strings.Contains(page, "<script") {
		t.Error("foreign text got through")
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct{ payload, from, to string }{
		{`{}`, "2024-01-08T00:00:00Z", now},
		{`{"date_range":null,"type":null}`, "2024-01-08T00:00:00Z", now},
		{`{"date_range":"last_7_days"}`, "2024-01-08T00:00:00Z", now},
		{`{"date_range":"last_30_days"}`, "2023-12-16T00:00:00Z", now},
		{`{"date_range":"last_24_hours"}`, "2024-01-13T15:00:00Z", now},
		{`{"date_range":"last_1_hours"}`, "2024-01-14T14:00:00Z", now},
		{`{"date_range":"today"}`, "2024-01-14T00:00:00Z", now},
		{`{"date_range":"yesterday"}`, "2024-01-13T00:00:00Z", "2024-01-14T00:00:00Z"},
		{`{"date_range":"this_month"}`, "2024-01-01T00:00:00Z", now},
		{`{"date_range":"last_month"}`, "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{`{"date_range":"this_year"}`, "2024-01-01T00:00:00Z", now},
		{`{"date_range":"all"}`, "2021-05-06T07:08:09Z", now},
		{`{"date_range":"today","timezone":"Asia/Tokyo"}`, "2024-01-14T15:00:00Z", now},
		{`{"date_range":"yesterday","timezone":"America/New_York"}`, "2024-01-13T05:00:00Z", "2024-01-14T05:00:00Z"},
		{`{"timezone":"Asia/Kolkata","date_range":"2023-02"}`, "2023-01-31T18:30:00Z", "2023-02-28T18:30:00Z"},
		{`{"date_range":"last_month","timezone":"Europe/Berlin"}`, "2023-11-30T23:00:00Z", "2023-12-31T23:00:00Z"},
		{`{"date_range":"2023"}`, "2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{`{"date_range":"2023-02"}`, "2023-02-01T00:00:00Z", "2023-03-01T00:00:00Z"},
		{`{"date_range":"2023-02-03"}`, "2023-02-03T00:00:00Z", "2023-02-04T00:00:00Z"},
		{`{"date_range":{"from":"2023-02-03","to":"2023-02-03"}}`, "2023-02-03T00:00:00Z", "2023-02-04T00:00:00Z"},
		{`{"date_range":{"from":"2023-02-03T10:00:00+02:00","to":"2023-03"}}`, "2023-02-03T08:00:00Z", "2023-04-01T00:00:00Z"},
		{`{"date_range":{"from":"2023-02-03"}}`, "2023-02-03T00:00:00Z", now},
		{`{"date_range":{"to":"2022"}}`, "2021-05-06T07:08:09Z", "2023-01-01T00:00:00Z"},
	} {
		t.Run(c.payload, func(t *testing.T) {
			v, _ := run(t, newHandler(t, job(1, "x", jobs.Completed, handlertest.At(t, "2021-05-06T07:08:09Z"), 0, 0, 1, "")), c.payload)
			if v.From != c.from || v.To != c.to {
				t.Errorf("%s – %s, want %s – %s", v.From, v.To, c.from, c.to)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct {
		payload  string
		pointers []string
	}{
		{`[]`, []string{"/payload"}},
		{`"x"`, []string{"/payload"}},
		{`{"type":"sales","date_range":"soon","x":1}`, []string{"/payload/type", "/payload/x", "/payload/date_range"}},
		{`{"date_range":"last_0_days"}`, []string{"/payload/date_range"}},
		{`{"date_range":7}`, []string{"/payload/date_range"}},
		{`{"date_range":["today"]}`, []string{"/payload/date_range"}},
		{`{"date_range":"1950"}`, []string{"/payload/date_range"}},
		{`{"date_range":{"from":"x","until":"y"}}`, []string{"/payload/date_range/from", "/payload/date_range/until"}},
		{`{"date_range":{"from":"2024-02","to":"2024-01"}}`, []string{"/payload/date_range/to"}},
		{`{"type":1}`, []string{"/payload/type"}},
	} {
		t.Run(c.payload, func(t *testing.T) {
			var e *jobs.Error
			err := newHandler(t).Check(jobs.NewPayload(json.RawMessage(c.payload)))
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, f := range e.Fields {
				got = append(got, f.Pointer)
			}
			if !slices.Equal(got, c.pointers) {
				t.Errorf("got %v, want %v", got, c.pointers)
			}
			_, err = newHandler(t).Handle(t.Context(), handlertest.NewTask(t, c.payload).Task)
			if !jobs.IsPermanent(err) {
				t.Errorf("Handle: %v, want a permanent error", err)
			}
		})
	}
}

func TestStopsWithItsContext(t *testing.T) {
	h := newHandler(t, handlertest.Synthetic(1, 300, handlertest.At(t, now), day)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(jobs.ErrTimeout)
	task := handlertest.NewTask(t, "")
	_, err := h.Handle(ctx, task.Task)
	if !errors.Is(err, jobs.ErrTimeout) {
		t.Errorf("got %v", err)
	}
	if left := task.End(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFrequentFindsTheCommonest(t *testing.T) {
	var f frequent
	for i := range 10_000 {
		f.add(fmt.Sprintf("rare %d", i))
		if i%10 == 0 {
			f.add("common")
		}
	}
	top := f.top(1)
	if len(f.list) != maxErrors || top[0].text != "common" || top[0].sure() > 1000 || top[0].sure() < 800 {
		t.Errorf("got %+v of %d", top, len(f.list))
	}
}

func TestManyTypesStayBounded(t *testing.T) {
	h := newHandler(t)
	var list []*jobs.Job
	at := handlertest.At(t, "2024-01-14T00:00:00Z")
	for i := range 3000 {
		list = append(list, job(i, fmt.Sprintf("type-%d", i), jobs.Failed, at.Add(time.Duration(i)), 0, 0, 1, fmt.Sprintf("error %d", i)))
	}
	h.history = handlertest.NewTracker(list...)
	v, page := run(t, h, "")
	if v.Records != 3000 || v.Failed != 3000 {
		t.Errorf("got %+v", v)
	}
	if !strings.Contains(page, otherTypes) || !strings.Contains(page, "more types with") {
		t.Error("what is left out isn't mentioned")
	}
	if len(page) > 200_000 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

func TestBucketsCoverThePeriod(t *testing.T) {
	for _, span := range []time.Duration{1, time.Hour, day, 2 * day, 3 * day, 30 * day, 93 * day, 200 * day, 900 * day, 4000 * day} {
		to := handlertest.At(t, now)
		p := lastHours(1)(to.Std())
		p.From, p.To = to.Add(-span), to
		u, edges := buckets(p, time.UTC)
		if len(edges) == 0 || len(edges) > 110 {
			t.Fatalf("%v: %d buckets", span, len(edges))
		}
		if edges[0] > p.From || edges[len(edges)-1] >= p.To || !slices.IsSorted(edges) {
			t.Errorf("%v: from %v to %v", span, edges[0], edges[len(edges)-1])
		}
		if next := u.next(edges[len(edges)-1].Std()); jobs.TimeOf(next) < p.To {
			t.Errorf("%v: ends at %v", span, next)
		}
	}
}

func TestTexts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 42 * time.Microsecond: "0.042 ms", 1500 * time.Microsecond: "1.50 ms", 123456 * time.Microsecond: "123 ms",
		999600 * time.Microsecond: "1.00 s", 1234 * time.Millisecond: "1.23 s", 59 * time.Second: "59.0 s", 60 * time.Second: "1 m 00 s",
		125 * time.Second: "2 m 05 s", 3*time.Hour + 7*time.Minute: "3 h 07 m", 49 * time.Hour: "2 d 01 h",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
	for share, want := range map[float64]string{0: "0%", 1: "100%", 0.9999: ">99.9%", 0.0001: "<0.1%", 0.5: "50.0%", 0.987: "98.7%"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q, want %q", share, got, want)
		}
	}
	for _, c := range [][3]string{
		{"2024-01-08", "2024-01-15", "8 – 14 January 2024"},
		{"2024-01-28", "2024-02-03T10:00:00Z", "28 January – 3 February 2024"},
		{"2023-12-28", "2024-01-03", "28 December 2023 – 2 January 2024"},
		{"2024-01-14", "2024-01-14T15:30:00Z", "14 January 2024"},
		{"2024-01-13T15:00:00Z", "2024-01-14T15:30:00Z", "13 January 2024, 15:00 – 14 January 2024, 15:30"},
	} {
		if got := periodText(handlertest.At(t, c[0]).Std(), handlertest.At(t, c[1]).Std()); got != c[2] {
			t.Errorf("%s – %s: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	for n, want := range map[int][2]int{0: {1, 1}, 1: {1, 1}, 4: {4, 1}, 5: {6, 2}, 9: {10, 5}, 612: {800, 200}, 1_000_000: {1_000_000, 500_000}} {
		if top, step := scale(n); top < n || top%step != 0 || top/step > 5 || [2]int{top, step} != want {
			t.Errorf("scale(%d) = %d, %d, want %v", n, top, step, want)
		}
	}
}

// TestSample writes a page of 5,000 jobs in 14 days for people to look at:
// REPORT_SAMPLE=/tmp/pages go test -run TestSample ./jobs/handlers/report
func TestSample(t *testing.T) {
	list := handlertest.Synthetic(7, 5000, handlertest.At(t, now), 14*day)
	pages := map[string]string{
		"summary": `{"date_range":"last_14_days"}`, "performance": `{"type":"performance","date_range":"last_24_hours"}`,
		"failures": `{"type":"failures","date_range":"last_14_days"}`, "empty": `{"date_range":"2022"}`,
	}
	for name, payload := range pages {
		v, page := run(t, newHandler(t, list...), payload)
		if name == "summary" && (v.Records < 4500 || v.Failed == 0 || v.Retries == 0 || *v.SuccessRate < 0.9) {
			t.Errorf("%s: %+v", name, v)
		}
		if dir := os.Getenv("REPORT_SAMPLE"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(page), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// stream is a history of made-up jobs that exist only while they are read. Each has
// failed with an error of its own.
type stream struct {
	n  int
	at func(i int) // called before each
}

func (s stream) Count(jobs.Filter) (int, error) { return s.n, nil }

func (s stream) Scan(_ context.Context, f jobs.Filter, yield func(*jobs.Job) error) error {
	for i := range s.n {
		s.at(i)
		at := f.CreatedAfter.Add(time.Duration(i) * time.Millisecond)
		j := job(i, fmt.Sprintf("type-%d", i%1000), jobs.Failed, at, time.Duration(i)*time.Microsecond, time.Duration(i)*time.Millisecond, 1, fmt.Sprintf("error %c%d", 'a'+i%26, i%999))
		if err := yield(j); err != nil {
			return err
		}
	}
	return nil
}

func TestManyRecordsInBoundedMemory(t *testing.T) {
	const n, bound = 250_000, 4 << 20 // as much as the list of their ids would take
	var m runtime.MemStats
	var highest uint64
	live := func() uint64 {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	h := newHandler(t)
	start := live()
	h.history = stream{n, func(i int) {
		if i%(n/5) == n/10 {
			highest = max(highest, live())
		}
	}}
	begun := time.Now()
	v, _ := run(t, h, "")
	if v.Records != n {
		t.Errorf("got %+v", v)
	}
	if highest > start+bound {
		t.Errorf("the heap grew from %d to %d KiB", start>>10, highest>>10)
	}
	t.Logf("%v, heap +%d KiB", time.Since(begun).Round(time.Millisecond), (int64(highest)-int64(start))>>10)
}
