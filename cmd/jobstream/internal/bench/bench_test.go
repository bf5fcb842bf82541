package bench

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSpreading(t *testing.T) {
	var hundred []int64
	for i := range int64(100) {
		hundred = append(hundred, (100-i)*1e6)
	}
	for _, c := range []struct {
		in   []int64
		want Spreading
	}{
		{hundred, Spreading{50, 99, 100}},
		{[]int64{7e6}, Spreading{7, 7, 7}},
		{[]int64{3e6, 1e6}, Spreading{1, 3, 3}},
	} {
		if got := newSpreading(c.in); got != c.want {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for _, c := range []struct {
		v        float64
		decimals int
		want     string
	}{
		{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1,000"}, {1234567.891, 2, "1,234,567.89"}, {0.456, 3, "0.456"},
	} {
		if got := grouped(c.v, c.decimals); got != c.want {
			t.Errorf("%v is written %q, want %q", c.v, got, c.want)
		}
	}
}

func TestPayload(t *testing.T) {
	for _, size := range []int{minPayload, 200, 1 << 16} {
		p := makePayload(size, 12345)
		if len(p) != size || !json.Valid(p) {
			t.Errorf("%d bytes for %d: %.80s", len(p), size, p)
		}
		if n, err := payloadNumber(p); n != 12345 || err != nil {
			t.Errorf("number %d, %v", n, err)
		}
	}
	for _, p := range []string{"", "null", `{"data":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`} {
		if n, err := payloadNumber([]byte(p)); err == nil {
			t.Errorf("%q has the number %d", p, n)
		}
	}
}

func TestReadAccepted(t *testing.T) {
	accepted := "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}"
	for _, c := range []struct{ name, in, want string }{
		{"one", accepted, ""},
		{"refused", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull", "the answer is HTTP/1.1 429 Too Many Requests: full"},
		{"no length", "HTTP/1.1 202 Accepted\r\n\r\n", "no Content-Length"},
		{"cut off", "HTTP/1.1 202 Acc", "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := readAccepted(bufio.NewReader(strings.NewReader(c.in)))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	two := bufio.NewReader(strings.NewReader(accepted + accepted))
	for range 2 {
		if err := readAccepted(two); err != nil {
			t.Error(err)
		}
	}
}

func TestProgressLine(t *testing.T) {
	for want, got := range map[string]string{
		"drain     [#####...............]  25 %  2,500 jobs, 1,250/s": progressLine(phaseDrain, 10_000, func() int64 { return 2500 }, 2*time.Second),
		"raw       3 s": progressLine(phaseRaw, 10_000, nil, 3*time.Second),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
