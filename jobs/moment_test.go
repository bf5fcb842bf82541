package jobs_test

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// TestParseMoment goes through the grammar of RFC 3339, section 5.6.
func TestParseMoment(t *testing.T) {
	good := map[string]string{
		"2026-01-15":                         "2026-01-15T00:00:00Z",
		"2026-01-15T08:09:10Z":               "2026-01-15T08:09:10Z",
		"2026-01-15t08:09:10z":               "2026-01-15T08:09:10Z",
		"2026-01-15T08:09:10.5Z":             "2026-01-15T08:09:10.5Z",
		"2026-01-15T08:09:10.123456789Z":     "2026-01-15T08:09:10.123456789Z",
		"2026-01-15T08:09:10.1234567899999Z": "2026-01-15T08:09:10.123456789Z",
		"2026-01-15T08:09:10+02:00":          "2026-01-15T06:09:10Z",
		"2026-01-15t08:09:10.25-05:30":       "2026-01-15T13:39:10.25Z",
		"2026-01-15T08:09:10-00:00":          "2026-01-15T08:09:10Z",
		"2026-01-15T23:59:59+23:59":          "2026-01-15T00:00:59Z",
		"2026-01-15T00:00:00-23:59":          "2026-01-15T23:59:00Z",
		"2024-02-29T00:00:00Z":               "2024-02-29T00:00:00Z",
		"1990-12-31T23:59:60Z":               "1991-01-01T00:00:00Z",
		"1990-12-31T15:59:60-08:00":          "1991-01-01T00:00:00Z",
		"1990-12-31T23:59:60.75Z":            "1991-01-01T00:00:00Z",
		"1971-01-01T00:00:00Z":               "1971-01-01T00:00:00Z",
		"2261-12-31T23:59:59.999999999Z":     "2261-12-31T23:59:59.999999999Z",
	}
	for in, want := range good {
		got, err := jobs.ParseMoment(in)
		if err != nil || got.Std().Format(time.RFC3339Nano) != want {
			t.Errorf("%q is read as %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "now", "2026", "2026-1-15", "2026-01-5", "26-01-15", "2026-13-01", "2026-00-01", "2026-01-00", "2026-01-32", "2026-02-29", "2026-02-29T00:00:00Z",
		"2026-01-15T", "2026-01-15T08:09:10", "2026-01-15T08:09Z", "2026-01-15 08:09:10Z", "2026-01-15T8:09:10Z", "2026-01-15T08:9:10Z",
		"2026-01-15T24:00:00Z", "2026-01-15T08:60:10Z", "2026-01-15T08:09:61Z", "2026-01-15T08:09:60Z", "2026-01-15T23:59:60+01:00",
		"2026-01-15T08:09:10,5Z", "2026-01-15T08:09:10.Z", "2026-01-15T08:09:10.5", "2026-01-15T08:09:10ZZ", "2026-01-15T08:09:10 Z",
		"2026-01-15T08:09:10+24:00", "2026-01-15T08:09:10+02", "2026-01-15T08:09:10+0200", "2026-01-15T08:09:10+02:60", "2026-01-15T08:09:10+2:00",
		"2026-01-15T08:09:10+02:00Z", "2026-01-15T08:09:10 02:00", "2026-01-15T08:09:10UTC", "20260115T080910Z", "2026-W03-4", "2026-015",
		" 2026-01-15", "2026-01-15 ", "2026\u201301\u201315", "１２３４-01-15", "+2026-01-15", "1970-12-31T23:59:59Z", "2262-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
		"2026-01-15T-1:00:00Z", "2026-01-15T08:09:1xZ", "2026-01-15T08:09:10+-1:00",
	} {
		if got, err := jobs.ParseMoment(in); err == nil {
			t.Errorf("%q is read as %s", in, got)
		}
	}
}

// TestParseZone takes the names of the time zone database only.
func TestParseZone(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT", "GMT"} {
		if loc, err := jobs.ParseZone(name); err != nil || loc.String() != name {
			t.Errorf("%q gives %v, %v", name, loc, err)
		}
	}
	for _, name := range []string{
		"", " ", "Local", "localtime", "Europe/Bielefeld", "posixrules", "posix/Europe/Berlin", "right/UTC", "Factory", "/etc/localtime",
		"../UTC", "Europe/../UTC", "tzdata.zi", "leapseconds", "Europe", "+02:00", "UTC ",
	} {
		if _, err := jobs.ParseZone(name); err == nil {
			t.Errorf("%q is a zone", name)
		}
	}
}

func TestTimeKeepsMoments(t *testing.T) {
	at := time.Date(2024, 1, 15, 8, 0, 0, 5, time.FixedZone("x", 3600))
	if got := jobs.TimeOf(at); !got.Std().Equal(at) || got.String() != "2024-01-15T07:00:00.000000005Z" || got.Add(time.Second).Sub(got) != time.Second {
		t.Errorf("got %s", got)
	}
	if jobs.TimeOf(time.Time{}) != 0 || !jobs.Time(0).Std().IsZero() || jobs.Time(0).String() != "" {
		t.Error("no time is not no time")
	}
}
