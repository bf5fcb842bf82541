package wire_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"jobstream/broker/internal/wire"
)

// TestLikeNATSGo sends random messages from this client and from nats.go. Both listen to
// random subjects, which change all the time. Both must see the same messages, those of one
// sender in the same order.
func TestLikeNATSGo(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	srv := start(t, &server.Options{})
	ours := open(t, srv, wire.Options{Name: "ours"})
	theirs, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	a, b := &ourSide{c: ours, sids: make(map[string]int)}, &theirSide{nc: theirs, subs: make(map[string]*nats.Subscription)}
	listening := make(map[string]bool)
	total := 0
	for range 20 {
		for _, pattern := range []string{"d.>", "d.*.a", "d.ours.*", "d.theirs.b", "d.*.*"} {
			if rng.IntN(2) == 0 {
				continue
			}
			listening[pattern] = !listening[pattern]
			for _, s := range []side{a, b} {
				if err := s.listen(pattern, listening[pattern]); err != nil {
					t.Fatal(err)
				}
			}
		}
		a.catchUp(t)
		b.catchUp(t)
		for range 100 {
			m := randomMessage(rng)
			for name, s := range map[string]side{"ours": a, "theirs": b} {
				sent := m
				sent.subject = "d." + name + "." + m.subject
				if err := s.send(sent); err != nil {
					t.Fatal(err)
				}
			}
		}
		a.catchUp(t) // what a side has sent is on its way to both then
		b.catchUp(t)
		a.catchUp(t)
		total += compare(t, a.collect(), b.collect())
	}
	if total < 100 {
		t.Errorf("only %d messages were seen", total)
	}
}

// compare compares the order in which both sides saw the messages of one sender to one pattern.
func compare(t *testing.T, ours, theirs []string) int {
	t.Helper()
	order := func(seen []string) map[string][]string {
		by := make(map[string][]string)
		for _, s := range seen {
			key, _, _ := strings.Cut(s, " from")
			by[key] = append(by[key], s)
		}
		return by
	}
	a, b := order(ours), order(theirs)
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if !slices.Equal(a[key], b[key]) {
			for i := range max(len(a[key]), len(b[key])) {
				if i >= len(a[key]) || i >= len(b[key]) || a[key][i] != b[key][i] {
					t.Fatalf("%s: %d and %d messages; they differ from number %d on\nours   %.300q\ntheirs %.300q", key, len(a[key]), len(b[key]), i,
						a[key][min(i, len(a[key])):min(i+1, len(a[key]))], b[key][min(i, len(b[key])):min(i+1, len(b[key]))])
				}
			}
		}
	}
	if len(a) != len(b) || len(ours) != len(theirs) {
		t.Fatalf("%d and %d messages were seen", len(ours), len(theirs))
	}
	return len(ours)
}

type message struct {
	subject, reply string
	header         nats.Header
	body           []byte
}

func randomMessage(rng *rand.Rand) message {
	m := message{subject: string("abc"[rng.IntN(3)])}
	if rng.IntN(3) == 0 {
		m.reply = fmt.Sprintf("r.%d", rng.IntN(1000))
	}
	if rng.IntN(2) == 0 {
		m.header = make(nats.Header)
		for range 1 + rng.IntN(4) {
			key := fmt.Sprintf("Key-%d", rng.IntN(5))
			m.header.Add(key, []string{"", "1", "a b", "日本", "x: y", strings.Repeat("z", rng.IntN(2000))}[rng.IntN(6)])
		}
	}
	size := rng.IntN(400)
	if rng.IntN(20) == 0 {
		size = rng.IntN(400_000) // more than fits into any buffer
	}
	m.body = make([]byte, size)
	for i := range m.body {
		m.body[i] = "\r\n ab"[rng.IntN(5)]
	}
	return m
}

// describe is a message in words, the same for either side.
func describe(pattern, subject, reply string, header nats.Header, body []byte) string {
	sender := strings.Split(subject, ".")[1]
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(header)) {
		lines = append(lines, fmt.Sprintf("%s=%q", key, header[key]))
	}
	hash := fnv.New64a()
	_, _ = hash.Write(body)
	return fmt.Sprintf("%s %s from %s reply %s header %s body %d %x", pattern, sender, subject, reply, strings.Join(lines, ";"), len(body), hash.Sum64())
}

type side interface {
	listen(pattern string, on bool) error
	send(message) error
}

// seen are the messages that came to a side.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, what)
}

func (s *seen) collect() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

type ourSide struct {
	seen
	c    *wire.Conn
	sids map[string]int
}

func (s *ourSide) listen(pattern string, on bool) (err error) {
	if !on {
		return s.c.Unsubscribe(s.sids[pattern])
	}
	s.sids[pattern], err = s.c.Subscribe(pattern, func(m *wire.Msg) {
		header := make(nats.Header)
		wire.EachHeader(m.Header, func(key, value []byte) { header.Add(string(key), string(value)) })
		s.add(describe(pattern, string(m.Subject), string(m.Reply), header, m.Body))
	})
	return err
}

func (s *ourSide) send(m message) error {
	var header []byte
	if m.header != nil {
		var b bytes.Buffer
		b.WriteString("NATS/1.0\r\n")
		for key, values := range m.header {
			for _, v := range values {
				fmt.Fprintf(&b, "%s: %s\r\n", key, v)
			}
		}
		b.WriteString("\r\n")
		header = b.Bytes()
	}
	return wire.Publish(s.c, m.subject, m.reply, header, m.body)
}

// catchUp returns when the server has read everything that this side has sent, and this side
// has handled everything that the server had sent by then.
func (s *ourSide) catchUp(t *testing.T) {
	t.Helper()
	flush(t, s.c)
}

type theirSide struct {
	seen
	nc   *nats.Conn
	subs map[string]*nats.Subscription
}

func (s *theirSide) listen(pattern string, on bool) (err error) {
	if !on {
		return s.subs[pattern].Unsubscribe()
	}
	s.subs[pattern], err = s.nc.Subscribe(pattern, func(m *nats.Msg) {
		s.add(describe(pattern, m.Subject, m.Reply, m.Header, m.Data))
	})
	return err
}

func (s *theirSide) send(m message) error {
	return s.nc.PublishMsg(&nats.Msg{Subject: m.subject, Reply: m.reply, Header: m.header, Data: m.body})
}

func (s *theirSide) catchUp(t *testing.T) {
	t.Helper()
	if err := s.nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	handled := make(chan struct{})
	if err := s.nc.Barrier(func() { close(handled) }); err != nil {
		t.Fatal(err)
	}
	await(t, "the last callback", handled)
}
