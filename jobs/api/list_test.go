package api_test

import (
	"net/url"
	"reflect"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// Only a scan says how much it has looked at.
func TestListingTellsOfAScan(t *testing.T) {
	l := jobs.Listing{Next: "c", Scanned: 20000}
	if got, want := string(api.AppendListEnd([]byte(api.OpenListing), &l)), `{"jobs":[],"next_cursor":"c"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l.ShowScanned = true
	if got, want := string(api.AppendListEnd([]byte(api.OpenListing), &l)), `{"jobs":[],"next_cursor":"c","scanned":20000}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l = jobs.Listing{ShowScanned: true}
	if got, want := string(api.AppendListEnd([]byte(api.OpenListing), &l)), `{"jobs":[],"next_cursor":"","scanned":0}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParseList(t *testing.T) {
	at := func(s string) jobs.Time {
		m, err := jobs.ParseMoment(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	many := strings.Repeat("&tag=x", api.MaxFilterValues+1)
	tests := []struct {
		query string // "" = not tried
		body  string // "" = not tried
		want  jobs.Page
		err   string // of the query; in the body's, "query/" is "/"
	}{
		{body: `{}`},
		{
			query: "status=failed&status=cancelled&type=email&tag=a&tag=b,c&limit=500&order=asc&cursor=zz",
			body:  `{"status":["failed","cancelled"],"type":"email","tag":["a","b,c"],"limit":500,"order":"asc","cursor":"zz"}`,
			want: jobs.Page{
				Filter: jobs.Filter{Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}, Types: []string{"email"}, Tags: []string{"a", "b,c"}},
				Limit:  500, Cursor: "zz", Asc: true,
			},
		},
		{
			query: "created_after=2024-01-15&created_before=2024-01-15T10:00:00Z&order=desc&limit=1",
			body:  `{"created_after":"2024-01-15","created_before":"2024-01-15T10:00:00Z","order":"desc","limit":"1"}`,
			want: jobs.Page{
				Filter: jobs.Filter{CreatedAfter: at("2024-01-15"), CreatedBefore: at("2024-01-15T10:00:00Z")},
				Limit:  1,
			},
		},
		{
			query: "priority=1&priority=5&error=i%2Fo+Timeout&payload=%22to%22%3A",
			body:  `{"priority":[1,"5"],"error":"i/o Timeout","payload":"\"to\":"}`,
			want: jobs.Page{
				Filter: jobs.Filter{Priorities: []jobs.Priority{1, 5}, Error: "i/o Timeout", Payload: `"to":`},
			},
		},
		{
			query: "started_after=2024-01-15&started_before=2024-01-16&ended_after=2024-01-17&ended_before=2024-01-18&priority=2",
			body:  `{"started_after":"2024-01-15","started_before":"2024-01-16","ended_after":"2024-01-17","ended_before":"2024-01-18","priority":2}`,
			want: jobs.Page{
				Filter: jobs.Filter{
					StartedAfter: at("2024-01-15"), StartedBefore: at("2024-01-16"), EndedAfter: at("2024-01-17"), EndedBefore: at("2024-01-18"),
					Priorities: []jobs.Priority{2},
				},
			},
		},
		{query: "priority=0", body: `{"priority":0}`, err: "query/priority"},
		{query: "priority=6&priority=1&priority=x", body: `{"priority":[6,1,"x"]}`, err: "query/priority query/priority"},
		{body: `{"priority":[1,null]}`, err: "query/priority"},
		{body: `{"priority":[[1]]}`, err: "query/priority"},
		{query: "error=", body: `{"error":""}`, err: "query/error"},
		{query: "payload=", body: `{"payload":""}`, err: "query/payload"},
		{query: "payload=a&payload=b", body: `{"payload":["a","b"]}`, err: "query/payload"},
		{query: "error=" + strings.Repeat("x", api.MaxFilterText+1), err: "query/error"},
		{body: `{"error":{"a":1}}`, err: "query/error"},
		{query: "started_after=1", body: `{"started_after":1}`, err: "query/started_after"},
		{query: "started_before=x", body: `{"started_before":"x"}`, err: "query/started_before"},
		{query: "ended_after=", body: `{"ended_after":""}`, err: "query/ended_after"},
		{query: "ended_before=2024-01-15&ended_before=2024-01-16", err: "query/ended_before"},
		{query: "status=done", body: `{"status":"done"}`, err: "query/status"},
		{query: "status=", body: `{"status":""}`, err: "query/status"},
		{query: "type=", body: `{"type":[""]}`, err: "query/type"},
		{query: "limit=0", body: `{"limit":0}`, err: "query/limit"},
		{query: "limit=501", body: `{"limit":501}`, err: "query/limit"},
		{query: "limit=ten", body: `{"limit":1.5}`, err: "query/limit"},
		{query: "limit=", body: `{"limit":""}`, err: "query/limit"},
		{query: "limit=1&limit=2", body: `{"limit":["1","2"]}`, err: "query/limit"},
		{query: "order=up", body: `{"order":"up"}`, err: "query/order"},
		{query: "created_after=today", body: `{"created_after":"today"}`, err: "query/created_after"},
		{query: "created_before=1", body: `{"created_before":1}`, err: "query/created_before"},
		{query: "wait=1&a=b", body: `{"a":"b","wait":1}`, err: "query/a query/wait"},
		{query: "x=1&x=2", body: `{"x":["1","2"]}`, err: "query/x"},
		{query: "x%2Fy=1", body: `{"x/y":1}`, err: "query/x~1y"},
		{query: many[1:], err: "query/tag"},
		{body: `{"order":[]}`, err: "query/order"},
		{body: `{"order":null,"status":null,"limit":null,"cursor":null}`},
		{body: `{"nothing":null}`, err: "query/nothing"},
		{body: `{"status":true}`, err: "query/status"},
		{body: `{"status":{}}`, err: "query/status"},
		{body: `{"status":[null]}`, err: "query/status"},
		{body: `{"tag":["a",1]}`, err: "query/tag"},
	}
	check := func(t *testing.T, page jobs.Page, err error, want jobs.Page, wantErr string) {
		t.Helper()
		if wantErr != "" {
			wantErr = "invalid_request " + wantErr
		}
		if got := jobstest.Failure(t, err); got != wantErr {
			t.Fatalf("error %q (%v), want %q", got, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(page, want) {
			t.Errorf("page %+v, want %+v", page, want)
		}
	}
	for _, tt := range tests {
		t.Run(tt.query+tt.body, func(t *testing.T) {
			if tt.query != "" {
				values, err := url.ParseQuery(tt.query)
				if err != nil {
					t.Fatal(err)
				}
				page, err := api.ParseListQuery(values)
				check(t, page, err, tt.want, tt.err)
			}
			if tt.body != "" {
				page, err := api.ParseListRequest([]byte(tt.body))
				check(t, page, err, tt.want, strings.ReplaceAll(tt.err, "query/", "/"))
			}
		})
	}
	if page, err := api.ParseListRequest(nil); err != nil || !reflect.DeepEqual(page, jobs.Page{}) {
		t.Errorf("an empty body gives %+v, %v", page, err)
	}
	for body, want := range map[string]string{`{`: "malformed_json", `[]`: "invalid_request "} {
		if _, err := api.ParseListRequest([]byte(body)); jobstest.Failure(t, err) != want {
			t.Errorf("%s gives %v, want %s", body, err, want)
		}
	}
}

func TestParseRef(t *testing.T) {
	id := jobs.NewID()
	tests := []struct {
		body string
		id   jobs.ID
		seq  uint64
		err  string
	}{
		{body: `{"id":"` + id.String() + `"}`, id: id},
		{body: `{"id":"` + strings.ToUpper(id.String()) + `"}`, id: id},
		{body: `{"id":"42"}`, seq: 42},
		{body: `{"id":42}`, seq: 42},
		{body: `{"id":18446744073709551615}`, seq: 1<<64 - 1},
		{body: `{"id":"18446744073709551616"}`, err: "not_found"},
		{body: `{"id":"{` + id.String() + `}"}`, err: "not_found"},
		{body: `{"id":"` + strings.ReplaceAll(id.String(), "-", "x") + `"}`, err: "not_found"},
		{body: `{"id":"7e5"}`, err: "not_found"},
		{body: `{"id":7e5}`, err: "not_found"},
		{body: `{"id":-1}`, err: "not_found"},
		{body: `{"id":0}`, err: "not_found"},
		{body: `{"id":"007"}`, err: "not_found"},
		{body: `{"id":"+7"}`, err: "not_found"},
		{body: `{"id":""}`, err: "not_found"},
		{body: `{"id":true}`, err: "invalid_request /id"},
		{body: `{"id":null}`, err: "invalid_request /id"},
		{body: `{"id":["42"]}`, err: "invalid_request /id"},
		{body: `{"id":{}}`, err: "invalid_request /id"},
		{body: `{}`, err: "invalid_request /id"},
		{body: `{"ID":"42"}`, err: "invalid_request /ID /id"},
		{body: `{"id":1,"wait":"30s"}`, err: "invalid_request /wait"},
		{body: `{"id":1,"id":2}`, err: "invalid_request /id"},
		{body: ``, err: "malformed_json"},
		{body: `42`, err: "invalid_request "},
	}
	for _, tt := range tests {
		t.Run(tt.body, func(t *testing.T) {
			got, seq, err := api.ParseRef([]byte(tt.body))
			if f := jobstest.Failure(t, err); f != tt.err {
				t.Fatalf("error %q (%v), want %q", f, err, tt.err)
			}
			if got != tt.id || seq != tt.seq {
				t.Errorf("got %s, %d; want %s, %d", got, seq, tt.id, tt.seq)
			}
		})
	}
}

func TestParseCountsQuery(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  jobs.Filter
		err   string
	}{
		{query: ""},
		{query: "status=failed&status=cancelled&type=email&tag=a", want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}, Types: []string{"email"}, Tags: []string{"a"},
		}},
		{query: "created_after=2024-01-15&created_before=2024-01-16", want: jobs.Filter{
			CreatedAfter: moment(t, "2024-01-15"), CreatedBefore: moment(t, "2024-01-16"),
		}},
		{query: "status=done&type=", err: "invalid_request query/status query/type"},
		{query: "priority=1&error=x&limit=5&order=asc&cursor=x", err: "invalid_request query/cursor query/error query/limit query/order query/priority"},
	} {
		t.Run(tt.query, func(t *testing.T) {
			values, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			f, err := api.ParseCountsQuery(values)
			if got := jobstest.Failure(t, err); got != tt.err {
				t.Fatalf("error %q (%v), want %q", got, err, tt.err)
			}
			if !reflect.DeepEqual(f, tt.want) {
				t.Errorf("%+v, want %+v", f, tt.want)
			}
		})
	}
}

func TestParseFilter(t *testing.T) {
	many := strings.Repeat(`"a",`, api.MaxFilterValues) + `"a"`
	for _, tt := range []struct {
		raw  string
		want jobs.Filter
		err  string // kind and pointers below /filter
	}{
		{raw: `{}`},
		{raw: ` { } `},
		{raw: `{"status":"failed","type":"email","tag":"a","priority":1}`, want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed}, Types: []string{"email"}, Tags: []string{"a"}, Priorities: []jobs.Priority{1},
		}},
		{raw: `{"status":["failed","cancelled"],"type":["email","export"],"tag":["a","b"],"priority":[1,5]}`, want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}, Types: []string{"email", "export"},
			Tags: []string{"a", "b"}, Priorities: []jobs.Priority{1, 5},
		}},
		{raw: `{"created_after":"2024-01-15T08:00:00Z","created_before":"2024-01-16","started_after":"2024-01-17","started_before":"2024-01-18"}`, want: jobs.Filter{
			CreatedAfter: moment(t, "2024-01-15T08:00:00Z"), CreatedBefore: moment(t, "2024-01-16"),
			StartedAfter: moment(t, "2024-01-17"), StartedBefore: moment(t, "2024-01-18"),
		}},
		{raw: `{"ended_after":"2024-01-15","ended_before":"2024-01-16","error":"a\"b","payload":"ü"}`, want: jobs.Filter{
			EndedAfter: moment(t, "2024-01-15"), EndedBefore: moment(t, "2024-01-16"), Error: `a"b`, Payload: "ü",
		}},
		{raw: `[]`, err: "invalid_request /filter"},
		{raw: `"failed"`, err: "invalid_request /filter"},
		{raw: `{"status"`, err: "malformed_json"},
		{raw: `{"status":"failed","status":"failed"}`, err: "invalid_request /filter/status"},
		{raw: `{"statuses":"failed","limit":1,"a/b":2}`, err: "invalid_request /filter/statuses /filter/limit /filter/a~1b"},
		{raw: `{"status":[],"type":[],"tag":[],"priority":[]}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":5,"type":1,"tag":{},"priority":"1"}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":["failed",1],"type":[""],"tag":"","priority":["1"]}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":"done","priority":[0,6,1.5]}`, err: "invalid_request /filter/status /filter/priority /filter/priority /filter/priority"},
		{raw: `{"created_after":1,"created_before":"x","ended_after":{},"ended_before":["2024-01-15"]}`, err: "invalid_request /filter/created_after /filter/created_before /filter/ended_after /filter/ended_before"},
		{raw: `{"started_after":"","started_before":true}`, err: "invalid_request /filter/started_after /filter/started_before"},
		{raw: `{"error":"","payload":5}`, err: "invalid_request /filter/error /filter/payload"},
		{raw: `{"error":["a"],"payload":"` + strings.Repeat("x", api.MaxFilterText+1) + `"}`, err: "invalid_request /filter/error /filter/payload"},
		{raw: `{"tag":[` + many + `]}`, err: "invalid_request /filter/tag"},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			body := `{"action":"delete","filter":` + tt.raw + `}`
			if tt.err == "" && tt.want.Empty() {
				body = `{"action":"delete","all":true,"filter":` + tt.raw + `}`
			}
			b, err := api.ParseBulk([]byte(body), "")
			if got := jobstest.Failure(t, err); got != tt.err {
				t.Fatalf("error %q (%v), want %q", got, err, tt.err)
			}
			if err == nil && !reflect.DeepEqual(b.Filter, tt.want) {
				t.Errorf("%+v, want %+v", b.Filter, tt.want)
			}
		})
	}
}

// TestEscapedPlus tells whoever forgot to escape the + of an offset.
func TestEscapedPlus(t *testing.T) {
	_, err := api.ParseListQuery(map[string][]string{"created_after": {"2026-01-15T08:00:00 02:00"}})
	if f := jobstest.Failure(t, err); f != "invalid_request query/created_after" || !strings.Contains(err.Error(), "%2B") {
		t.Errorf("got %v", err)
	}
	_, err = api.ParseListQuery(map[string][]string{"created_after": {"2026-01-15 08:00:00Z"}})
	if strings.Contains(err.Error(), "%2B") {
		t.Errorf("got %v", err)
	}
}

func moment(t *testing.T, s string) jobs.Time {
	t.Helper()
	m, err := jobs.ParseMoment(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
