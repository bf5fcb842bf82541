package broker

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"

	"jobstream/jobs"
)

// Read follows JOBS and STATUS from behind the given positions and hands what
// they hold to sink, until ctx ends; then it returns ctx's cause. Calls to the
// sink come one at a time per stream. A call that blocks holds its stream up:
// the server sends no more than Options.readAhead of what the sink has not taken.
func (b *Broker) Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error {
	var names interner // of the feed of STATUS
	var group sync.WaitGroup
	var errs [2]error
	group.Go(func() {
		f := feed{b: b, stream: JobsStream, last: from.Jobs, parse: newMessageParser().item, take: func(it *item) error {
			sink.Submitted(it.message)
			return nil
		}}
		errs[0] = f.run(ctx)
	})
	group.Go(func() {
		f := feed{b: b, stream: StatusStream, last: from.Status, parse: bodyItem, take: func(it *item) error {
			events, err := decodeEvents(it.body, &names)
			if err != nil {
				b.log.Warn("a message in the event log makes no sense; it is skipped", "stream", StatusStream, "seq", it.seq, "error", err)
				events = nil
			}
			sink.Happened(it.seq, events)
			return nil
		}}
		errs[1] = f.run(ctx)
	})
	group.Wait()
	return errors.Join(errs[0], errs[1])
}

// Kept calls fn with the body of every message that NOTIFICATIONS holds now,
// oldest first; body is fn's to keep. An error of fn ends it.
func (b *Broker) Kept(ctx context.Context, fn func(body []byte) error) error {
	state, err := b.state(ctx, NotificationsStream)
	if err != nil || state.Msgs == 0 {
		return err
	}
	errDone := errors.New("done")
	f := feed{b: b, stream: NotificationsStream, last: state.First - 1, parse: bodyItem, take: func(it *item) error {
		if it.body != nil {
			if err := fn(it.body); err != nil {
				return err
			}
		}
		if it.seq >= state.Last {
			return errDone
		}
		return nil
	}}
	f.beats = true // the last messages may be deleted meanwhile: heartbeats say how far it is
	if err := f.run(ctx); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// item is one thing between the connection's goroutine and the one that calls
// the sink.
type item struct {
	seq     uint64
	message *jobs.Message
	body    []byte
	ended   int // a pull request of this round of the feed has ended, and nothing else; 0 = none
}

func bodyItem(f *frame, a ackInfo) item {
	return item{seq: a.seq, body: append(make([]byte, 0, len(f.body)), f.body...)}
}

// feed follows one stream through a consumer of its own, with one pull request at a
// time, bounded by bytes and as good as unbounded in messages: a push consumer with
// flow control lets up to 32 MiB be under way, which is more than the server lets
// any client be behind. The request is made again when what it brought has been taken.
// The consumer's delivery numbers have no gaps; if one shows, or heartbeats stay out,
// a new consumer goes on behind the last message that came.
type feed struct {
	b      *Broker
	stream string
	parse  func(*frame, ackInfo) item
	take   func(*item) error
	beats  bool // heartbeats are handed to take as items without a body

	link   *link
	inbox  string
	heard  atomic.Int64  // when the last frame came, nanoseconds since the broker was opened
	broken chan struct{} // the consumer must be replaced

	mu     sync.Mutex
	last   uint64 // sequence of the last message that came
	round  int    // number of the consumer, from 1
	sid    int    // its subscription; -1 if there is none
	pull   string // where it takes requests
	left   int    // bytes that the request can still bring; 0 = it has ended
	expect uint64 // its next delivery; 0 = ignore what comes
	queue  []item
	filled chan struct{} // there is something in the queue
}

func (f *feed) run(ctx context.Context) error {
	l, err := openLink("jobstream reader of "+f.stream, 0, f.b.log, f.b.srv.InProcessConn, nil)
	if err != nil {
		return fmt.Errorf("cannot read stream %s: %w", f.stream, err)
	}
	defer l.close()
	f.link = l
	f.inbox, f.sid = "_INBOX."+nuid.Next(), -1
	f.broken = make(chan struct{}, 1)
	f.filled = make(chan struct{}, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	group.Go(func() { cancel(f.drain(ctx)) })
	f.keepConsuming(ctx)
	group.Wait()
	return context.Cause(ctx)
}

// keepConsuming makes a consumer, and another one whenever it breaks.
func (f *feed) keepConsuming(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	name := ""
	defer func() { f.remove(name) }() //nolint:contextcheck // ctx has ended by then
	for ctx.Err() == nil {
		f.remove(name) //nolint:contextcheck // it must go even when ctx ends
		var err error
		if name, err = f.consume(ctx); err != nil {
			if ctx.Err() == nil {
				f.b.log.Error("cannot read a stream; trying again", "stream", f.stream, "error", err)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		f.awaitBreak(ctx, tick.C)
	}
}

func (f *feed) awaitBreak(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.broken:
			f.b.log.Warn("lost track of a stream; reading on with a new consumer", "stream", f.stream)
			return
		case <-tick:
			if f.listening() && f.b.clock()-f.heard.Load() > int64(3*heartbeat) {
				f.b.log.Warn("a stream's consumer is silent; reading on with a new one", "stream", f.stream)
				return
			}
		}
	}
}

// listening says whether heartbeats can be expected: not while the request has
// ended and what it brought waits to be taken.
func (f *feed) listening() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left > 0
}

// consume makes a consumer behind the last message that came, or at the
// stream's end if the stream has gone back behind that.
func (f *feed) consume(ctx context.Context) (name string, err error) {
	state, err := f.b.state(ctx, f.stream)
	if err != nil {
		return "", err
	}
	start, round := f.nextRound(state.Last)
	if f.sid >= 0 {
		if err := f.link.unsubscribe(f.sid); err != nil {
			return "", err
		}
	}
	f.sid, err = f.link.subscribe(f.replies(round), func(m *frame) { f.receive(round, m) })
	if err != nil {
		return "", err
	}
	if err := f.link.flush(ctx); err != nil { // else the request would find nobody listening
		return "", err
	}
	select {
	case <-f.broken:
	default:
	}
	f.heard.Store(f.b.clock())
	name = "reader-" + nuid.Next()
	if _, err = f.b.js.CreateOrUpdateConsumer(ctx, f.stream, readerConfig(name, start)); err != nil {
		return name, err
	}
	f.mu.Lock()
	f.pull = pullSubject(f.stream, name)
	f.mu.Unlock()
	f.ask(round)
	return name, nil
}

// replies is where the messages of a round go.
func (f *feed) replies(round int) string { return f.inbox + "." + strconv.Itoa(round) }

func (f *feed) nextRound(end uint64) (start uint64, round int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round++
	f.expect = 1
	f.left = 0
	f.last = min(f.last, end)
	return f.last + 1, f.round
}

// ask makes the next request of a round.
func (f *feed) ask(round int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.expect == 0 || round != f.round {
		return
	}
	f.left = f.b.o.readAhead()
	f.heard.Store(f.b.clock())
	body := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, math.MaxInt32, f.left, pullExpiry, heartbeat)
	if err := f.link.publish(f.pull, f.replies(round), nil, body); err != nil {
		f.fail()
	}
}

func (f *feed) remove(name string) {
	if name == "" {
		return
	}
	f.mu.Lock()
	f.expect = 0 // its requests are refused now
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	// if that fails the server removes it when it finds nobody listening
	_ = f.b.js.DeleteConsumer(ctx, f.stream, name)
}

// receive runs on the connection's goroutine.
func (f *feed) receive(round int, m *frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.expect == 0 || round != f.round {
		return
	}
	f.heard.Store(f.b.clock())
	if code := m.status(); code != 0 {
		f.control(code, m)
		return
	}
	a, ok := parseAck(m.reply)
	if !ok || a.delivery != f.expect {
		f.fail()
		return
	}
	f.expect++
	f.last = a.seq
	f.push(f.parse(m, a))
	if f.left -= len(m.subject) + len(m.reply) + len(m.header) + len(m.body); f.left <= 0 {
		f.ended() // the server says nothing if a request is used up to its last byte
	}
}

// control takes heartbeats and the word of the request's end.
func (f *feed) control(code int, m *frame) {
	switch text := m.statusText(); {
	case code == 100:
		if delivered := m.get("Nats-Last-Consumer"); parseUint(delivered)+1 != f.expect {
			f.fail()
		} else if f.beats {
			f.push(item{seq: parseUint(m.get("Nats-Last-Stream"))})
		}
	case code == 408, code == 409 && strings.Contains(text, "MaxBytes"):
		if f.left > 0 {
			f.ended()
		}
	default: // its consumer is gone, or the server is in trouble
		f.b.log.Warn("a reader's request was refused", "stream", f.stream, "status", text)
		f.fail()
	}
}

// ended has the next request made when all that came before has been taken. That
// is what holds the server back.
func (f *feed) ended() {
	f.left = 0
	f.push(item{ended: f.round})
}

func (f *feed) fail() {
	f.expect = 0
	select {
	case f.broken <- struct{}{}:
	default:
	}
}

func (f *feed) push(it item) {
	f.queue = append(f.queue, it)
	if len(f.queue) == 1 {
		select {
		case f.filled <- struct{}{}:
		default:
		}
	}
}

// drain hands the queue to take, all that is there at a time.
func (f *feed) drain(ctx context.Context) error {
	var batch []item
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.filled:
		}
		f.mu.Lock()
		clear(batch)
		batch, f.queue = f.queue, batch[:0]
		f.mu.Unlock()
		for i := range batch {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := f.handle(&batch[i]); err != nil {
				return err
			}
			batch[i] = item{}
		}
	}
}

func (f *feed) handle(it *item) error {
	if it.ended > 0 {
		f.ask(it.ended)
		return nil
	}
	return f.take(it)
}

// messageParser makes messages of what JOBS holds.
type messageParser struct{ types interner }

func newMessageParser() *messageParser { return &messageParser{} }

func (p *messageParser) item(f *frame, a ackInfo) item {
	m := &jobs.Message{Seq: a.seq, At: jobs.Time(a.at), RetryCount: -1}
	p.subject(m, f.subject)
	if len(f.header) > 0 {
		eachHeader(f.header, func(key, value []byte) { readHeader(m, key, value) })
	}
	if m.ID == (jobs.ID{}) {
		m.ID = jobs.DerivedID(m.Seq, m.At)
	}
	if len(f.body) > 0 {
		m.Payload = append(make(json.RawMessage, 0, len(f.body)), f.body...)
	}
	return item{seq: a.seq, message: m}
}

// readHeader takes one header into m; the first thing wrong becomes its problem.
func readHeader(m *jobs.Message, key, value []byte) {
	var err error
	switch {
	case equalFold(key, HeaderJobID):
		m.ID, err = parseID(value)
	case equalFold(key, HeaderTags):
		m.Tags, err = parseTags(m.Tags, string(value))
	case equalFold(key, HeaderRetryCount):
		m.RetryCount, err = parseRetryCount(string(value))
	case equalFold(key, HeaderTimeout):
		m.Timeout, err = parseTimeout(string(value))
	case equalFold(key, HeaderMoved):
		m.Moved = true
		m.CreatedAt = jobs.Time(parseUint(value))
	default:
		err = readTerms(m, key, string(value))
	}
	if err != nil && m.Problem == "" {
		m.Problem = fmt.Sprintf("header %s: %v", key, err)
	}
}

// parseID is jobs.ParseID without a string for each message.
func parseID(value []byte) (id jobs.ID, err error) {
	if len(value) != 36 {
		return jobs.ParseID(string(value))
	}
	err = id.UnmarshalText(value)
	return id, err
}

// readTerms takes a header that most messages don't have.
func readTerms(m *jobs.Message, key []byte, value string) (err error) {
	terms := func() *jobs.Terms {
		if m.Terms == nil {
			m.Terms = &jobs.Terms{}
		}
		return m.Terms
	}
	var d time.Duration
	switch {
	case equalFold(key, HeaderRunAt):
		terms().RunAt, err = jobs.ParseMoment(value)
	case equalFold(key, HeaderDelay):
		if d, err = parseSpan(value); err == nil {
			terms().RunAt = m.At.Add(d)
		}
	case equalFold(key, HeaderExpiresAt):
		terms().ExpiresAt, err = jobs.ParseMoment(value)
	case equalFold(key, HeaderTTL):
		if d, err = parseSpan(value); err == nil {
			terms().ExpiresAt = m.At.Add(d)
		}
	case equalFold(key, HeaderDeadline):
		terms().Deadline, err = jobs.ParseMoment(value)
	case equalFold(key, HeaderUniqueKey):
		terms().UniqueKey, err = value, jobs.CheckKey(value)
	case equalFold(key, HeaderKey):
		terms().ConcurrencyKey, err = value, jobs.CheckKey(value)
	case equalFold(key, HeaderScheduledFor):
		terms().ScheduledFor, err = jobs.ParseMoment(value)
	case equalFold(key, HeaderSchedule):
		terms().Schedule, err = value, jobs.CheckKey(value)
	case equalFold(key, HeaderMessageID):
		if m.Token == nil && value != "" { // for the server, too, an empty one is none
			m.Token = jobs.NewToken("nats", value, nil)
		}
	case equalFold(key, HeaderToken):
		m.Token, err = parseToken(value)
	case equalFold(key, HeaderBatchEnd):
		m.BatchEnd, err = jobs.ParseID(value)
	}
	return err
}

// parseToken reads the hex of a token's two hashes.
func parseToken(value string) (*jobs.Token, error) {
	b, err := hex.DecodeString(value)
	t := &jobs.Token{}
	if err != nil || len(b) != len(t.Key)+len(t.Body) {
		return nil, fmt.Errorf("%s is not an idempotency token", clip(value))
	}
	copy(t.Key[:], b)
	copy(t.Body[:], b[len(t.Key):])
	return t, nil
}

// parseSpan reads how long something is put off.
func parseSpan(value string) (time.Duration, error) {
	d, err := jobs.ParseDuration(value)
	if err != nil || d > jobs.MaxDelay {
		return 0, fmt.Errorf("%s is not a time from 0 to ten years, like 300 or 5m", clip(value))
	}
	return d, nil
}

func parseTags(tags []string, value string) ([]string, error) {
	for t := range strings.SplitSeq(value, ",") {
		tags = append(tags, strings.TrimSpace(t))
	}
	if err := jobs.CheckTags(tags); err != nil {
		return nil, fmt.Errorf("%s: %w", clip(value), err)
	}
	return tags, nil
}

func parseRetryCount(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > jobs.MaxRetryCount {
		return -1, fmt.Errorf("%s is not a whole number from 0 to %d", clip(value), jobs.MaxRetryCount)
	}
	return n, nil
}

func parseTimeout(value string) (time.Duration, error) {
	d, err := jobs.ParseDuration(value)
	if err != nil || d <= 0 || d > jobs.MaxTimeout {
		return 0, fmt.Errorf("%s is not a time above 0 and up to 7d, like 300 or 5m", clip(value))
	}
	return d, nil
}

// clip quotes a value for a message, shortened.
func clip(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strconv.Quote(s)
}

// subject reads type and priority out of jobs.<type>.<priority>.
func (p *messageParser) subject(m *jobs.Message, subject []byte) {
	m.Priority = jobs.DefaultPriority
	rest := bytes.TrimPrefix(subject, []byte("jobs."))
	name, level, found := bytes.Cut(rest, []byte("."))
	m.Type = p.types.get(name)
	valid := jobs.ValidTypeName(m.Type)
	if !valid {
		m.Type = safeType(m.Type)
	}
	switch {
	case valid && found && len(level) == 1 && jobs.Priority(level[0]-'0').Valid():
		m.Priority = jobs.Priority(level[0] - '0')
	case valid && !found: // no stream setting lets that through, but it has one meaning
	default:
		m.Problem = fmt.Sprintf("subject %s is none for jobs; expected is jobs.<type> or jobs.<type>.<priority> with a type of letters, digits, _ and -, and a priority from 1 to 5", clip(string(subject)))
	}
}

// safeType makes a valid name of anything.
func safeType(name string) string {
	safe := []byte(name[:min(len(name), jobs.MaxTypeName)])
	for i, c := range safe {
		if !jobs.ValidTypeName(string(rune(c))) {
			safe[i] = '_'
		}
	}
	if len(safe) == 0 {
		return "unknown"
	}
	return string(safe)
}
