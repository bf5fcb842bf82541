package jobs_test

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"jobstream/jobs"
)

func TestListJSON(t *testing.T) {
	a := &jobs.Job{ID: jobs.NewID(), Type: "email", Priority: 3, Status: jobs.Pending, Seq: 1, Payload: json.RawMessage(`{"to":"a"}`)}
	b := &jobs.Job{ID: jobs.NewID(), Type: "export", Priority: 1, Status: jobs.Completed, Seq: 2}
	for _, found := range [][]*jobs.Job{nil, {a}, {a, b}} {
		var got struct {
			Jobs []*jobs.Job
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(jobs.ListJSON(found, `c"1`), &got); err != nil {
			t.Fatal(err)
		}
		if got.Jobs == nil || len(got.Jobs) != len(found) || got.Next == nil || *got.Next != `c"1` {
			t.Errorf("got %d jobs (nil: %v), want %d", len(got.Jobs), got.Jobs == nil, len(found))
		}
		for i := range got.Jobs {
			if got.Jobs[i].ID != found[i].ID {
				t.Errorf("job %d is %s, want %s", i, got.Jobs[i].ID, found[i].ID)
			}
		}
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
	many := strings.Repeat("&tag=x", jobs.MaxFilterValues+1)
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
		{body: `{"order":null}`, err: "query/order"},
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
		if got := failure(t, err); got != wantErr {
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
				page, err := jobs.ParseListQuery(values)
				check(t, page, err, tt.want, tt.err)
			}
			if tt.body != "" {
				page, err := jobs.ParseListRequest([]byte(tt.body))
				check(t, page, err, tt.want, strings.ReplaceAll(tt.err, "query/", "/"))
			}
		})
	}
	if page, err := jobs.ParseListRequest(nil); err != nil || !reflect.DeepEqual(page, jobs.Page{}) {
		t.Errorf("an empty body gives %+v, %v", page, err)
	}
	for body, want := range map[string]string{`{`: "malformed_json", `[]`: "invalid_request "} {
		if _, err := jobs.ParseListRequest([]byte(body)); failure(t, err) != want {
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
			got, seq, err := jobs.ParseRef([]byte(tt.body))
			if f := failure(t, err); f != tt.err {
				t.Fatalf("error %q (%v), want %q", f, err, tt.err)
			}
			if got != tt.id || seq != tt.seq {
				t.Errorf("got %s, %d; want %s, %d", got, seq, tt.id, tt.seq)
			}
		})
	}
}
