package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Options are the parameters of a [Member]. All are required, except those that say
// otherwise.
type Options struct {
	Name    string     // of this node, unique among the members
	Members func() int // how many there are now, with this one
	Log     Log
	Tracker Tracker
	Peers   Peers
	// Lead is called when this node begins to lead, and works until ctx ends. The cause
	// of that is [ErrDeposed], if nothing can be committed any more. After any other
	// cause it ends in good order, and may commit as long as it takes. If it returns by
	// itself, another node shall lead.
	Lead func(ctx context.Context) error
	// Info returns what the others are told about this node. It may be nil.
	Info   func() json.RawMessage
	Pace   Pace         // zero values are the defaults
	Logger *slog.Logger // none if nil
}

// Pace are the times of a [Member]. Those of all members must be the same.
type Pace struct {
	// Beat is how long a leader has nothing to append before it appends a beat.
	Beat time.Duration
	// Silence is how long a follower sees no entry before it tries to lead. A random
	// part of up to a third is added.
	Silence time.Duration
	// Lease is how long after an append a leader counts as one. It must not be longer
	// than Silence.
	Lease time.Duration
	// Answer is how long the log may take to answer before it is asked again.
	Answer time.Duration
	// Look is how often a follower looks for entries without having heard the bell.
	Look time.Duration
	// Stop is how long a leader that stops waits for a log that does not answer.
	Stop time.Duration
}

func (p *Pace) fill() {
	for _, t := range []struct {
		of    *time.Duration
		usual time.Duration
	}{
		{&p.Beat, 300 * time.Millisecond},
		{&p.Silence, time.Second},
		{&p.Lease, time.Second},
		{&p.Answer, 300 * time.Millisecond},
		{&p.Look, 50 * time.Millisecond},
		{&p.Stop, 5 * time.Second},
	} {
		if *t.of <= 0 {
			*t.of = t.usual
		}
	}
}

// Role is what a member does.
type Role string

// The roles.
const (
	Following Role = "following"
	Leading   Role = "leading"
	// Behind is the role of a member that cannot follow, because the log does not go on
	// from its tracker. It asks the others for a copy of theirs.
	Behind Role = "behind"
)

// State is how a member is doing.
type State struct {
	Role     Role
	Position Position
	// Moved is when it got there.
	Moved time.Time
	// Why is the reason why it neither leads nor follows a leader; "" if it does.
	Why string
}

// Hello is what the members tell each other all the time.
type Hello struct {
	Name   string          `json:"name"`
	Epoch  uint64          `json:"epoch"`
	Number uint64          `json:"number"`
	Format Format          `json:"format,omitempty"` // the latest that it reads
	Role   Role            `json:"role"`
	Leads  bool            `json:"leads,omitempty"` // see Member.Leads
	Why    string          `json:"why,omitempty"`   // see State
	Info   json.RawMessage `json:"info,omitempty"`
	Sent   time.Time       `json:"sent,omitzero"` // by the sender's clock
	// Heard is when it came, by this node's clock.
	Heard time.Time `json:"-"`
	// Ahead is how far the sender's clock is ahead of this node's one, at least. It is
	// taken from the greeting of the last ones that was under way for the shortest time.
	Ahead time.Duration `json:"-"`
}

// Member is a node that keeps its tracker equal to those of the others. Its methods may
// be called from any goroutine.
type Member struct {
	o     Options
	peers peers

	mu    sync.Mutex
	state State
	lead  *leadership   // nil while it does not lead
	moved chan struct{} // closed when the position changes; nil while nobody waits
}

// New returns a member, which does nothing before [Member.Run].
func New(o Options) *Member {
	o.Pace.fill()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Member{
		o: o, peers: peers{known: make(map[string]Hello)},
		state: State{Role: Following, Position: o.Tracker.Position(), Why: "it has just started"},
	}
}

// Run follows and leads until ctx ends, or until it turns out that it cannot begin a log,
// see [ErrBegun]. A member that leads then ends that in good
// order, and tells the others by its last entry that they may lead at once.
func (m *Member) Run(ctx context.Context) error {
	greeting, stop := context.WithCancel(context.WithoutCancel(ctx))
	var greeter sync.WaitGroup
	greeter.Go(func() { m.greet(greeting) })
	defer greeter.Wait()
	defer stop()
	at, logged := newChain(m.o.Tracker.Position()), ""
	for ctx.Err() == nil {
		f, l, err := m.follow(ctx, at)
		at = newChain(m.o.Tracker.Position())
		var b *errBroken
		switch {
		case err == nil:
			m.leads(ctx, l)
			at = newChain(m.o.Tracker.Position())
		case ctx.Err() != nil:
		case errors.As(err, &b) && at.base():
			return fmt.Errorf("%w, so this one's cannot be added to it (%w): a new cluster begins with one node that has data, which must be among the first two that start", ErrBegun, err)
		case errors.As(err, &b), errors.Is(err, ErrApart):
			at = m.replace(ctx, f.chain, err)
		default:
			if logged != err.Error() {
				logged = err.Error()
				m.o.Logger.Error("this node cannot follow the log; it tries again and again", "error", err)
			}
			m.say(Following, fmt.Sprintf("its tracker cannot be changed: %v", err))
			pause(ctx, m.o.Pace.Silence/2)
		}
	}
	return nil
}

// State is how the member is doing.
func (m *Member) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Leads says whether this node leads, and no other one can have begun to.
func (m *Member) Leads() bool {
	m.mu.Lock()
	l := m.lead
	m.mu.Unlock()
	return l != nil && l.holds()
}

// Number is that of the last entry that can have been committed here. ok is false if another
// node may lead. Everything that this node has answered before has no higher number.
func (m *Member) Number() (number uint64, ok bool) {
	number = m.State().Position.Number
	return number, m.Leads() // in this order: the lease must hold after the look
}

// settlePause is how often a leader looks whether it has committed an entry.
const settlePause = 500 * time.Microsecond

// Settled waits until this node has committed what it has appended, if it leads. Others may
// show that already. ok is false if another node may lead.
func (m *Member) Settled(ctx context.Context) (ok bool, err error) {
	m.mu.Lock()
	l := m.lead
	m.mu.Unlock()
	if l == nil {
		return false, nil
	}
	for number := l.sealing.Load(); m.o.Tracker.Position().Number < number; {
		if !l.holds() {
			return false, nil
		}
		pause(ctx, settlePause)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	return l.holds(), nil
}

// Applied waits until this node has the entry with a number.
func (m *Member) Applied(ctx context.Context, number uint64) error {
	for {
		m.mu.Lock()
		if m.state.Position.Number >= number {
			m.mu.Unlock()
			return nil
		}
		if m.moved == nil {
			m.moved = make(chan struct{})
		}
		moved := m.moved
		m.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// say changes what the member says about itself.
func (m *Member) say(r Role, why string) {
	m.mu.Lock()
	before := m.state
	m.state.Role, m.state.Why = r, why
	m.mu.Unlock()
	if before.Role != r || before.Why != why {
		m.o.Logger.Debug("the node's part in the cluster", "role", r, "why", why)
	}
}

func (m *Member) at(p Position) {
	m.mu.Lock()
	m.state.Position, m.state.Moved = p, time.Now()
	if m.moved != nil {
		close(m.moved)
		m.moved = nil
	}
	m.mu.Unlock()
}

// readMost is how many messages are read at a time.
const readMost = 500

// storeEvery is how many entries without changes may pass before the position behind
// them is stored. A start reads them again.
const storeEvery = 256

// follow applies the entries of the log from a place on, until this node has become the
// leader.
func (m *Member) follow(ctx context.Context, c chain) (*follower, *leadership, error) {
	m.at(c.Position)
	f := &follower{m: m, chain: c, stored: c.Number}
	f.heard()
	m.say(Following, "it has seen no leader yet")
	tick := time.NewTicker(m.o.Pace.Look)
	defer tick.Stop()
	for {
		more, err := f.read(ctx)
		if err != nil {
			return f, nil, err
		}
		if !more && f.mayLead() {
			l, err := f.campaign(ctx)
			if l != nil || err != nil {
				return f, l, err
			}
		}
		if more {
			continue
		}
		select {
		case <-m.o.Log.Bell():
		case <-tick.C:
		case <-ctx.Done():
			return f, nil, context.Cause(ctx)
		}
	}
}

// follower is the work of a member that follows. One goroutine owns it.
type follower struct {
	m      *Member
	chain  chain
	stored uint64 // the number of the stored position

	resigned bool      // the last entry says that everybody may lead
	silent   time.Time // when the leader has been silent for too long
	gap      time.Time // since when the next message seems to be gone; zero = it does not
	stray    bool      // the replica does not have what the log has; see [follower.strays]
	compared time.Time // when it was last compared with the log, while it is stray
}

// heard notes that there is a leader.
func (f *follower) heard() {
	silence := f.m.o.Pace.Silence
	f.silent = time.Now().Add(silence + rand.N(silence/3+1))
}

// mayLead says whether this node may try to lead.
func (f *follower) mayLead() bool { return f.resigned || !time.Now().Before(f.silent) }

// gapTime is how long a replica of the log may lack the next message before it counts as
// gone.
const gapTime = time.Second

// compareEvery is how often a replica that strays is compared with the log.
const compareEvery = time.Second

// read applies what is new in the log. more says that there may be more of it.
func (f *follower) read(ctx context.Context) (more bool, err error) {
	messages, err := f.messages(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		f.m.say(Following, fmt.Sprintf("the log cannot be read: %v", err))
		return false, nil
	}
	if len(messages) == 0 {
		return false, nil
	}
	if first := messages[0].Seq; first > f.chain.head+1 {
		switch {
		case f.gap.IsZero():
			f.gap = time.Now()
		case time.Since(f.gap) > gapTime:
			return false, broken("it begins with message %d, and the next one would be %d", first, f.chain.head+1)
		}
		return false, nil
	}
	f.gap = time.Time{}
	if err := f.apply(messages); err != nil {
		if b := new(errBroken); !errors.As(err, &b) || f.stray {
			return false, err
		}
		// It may be the replica that is wrong.
		f.strays()
		return true, nil
	}
	f.heard()
	f.m.say(Following, "")
	return true, nil
}

// messages are the next ones. While the replica strays, the log's leader is asked for each.
func (f *follower) messages(ctx context.Context) (all []Message, err error) {
	l, patience := f.m.o.Log, max(f.m.o.Pace.Answer, time.Second)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f.compare(ctx)
	if !f.stray {
		return l.Read(ctx, f.chain.head+1, readMost)
	}
	for begun := time.Now(); len(all) < readMost && time.Since(begun) < patience/2; {
		m, err := l.Next(ctx, f.chain.head+1+uint64(len(all)))
		if err != nil && len(all) == 0 {
			return nil, err
		}
		if err != nil || m.Body == nil {
			break
		}
		all = append(all, m)
	}
	return all, nil
}

// strays notes that the replica does not have what the log has, or lacks it for long. The
// log has gone back then as a rule, and this replica has not, or it is late.
func (f *follower) strays() {
	if !f.stray {
		f.m.o.Logger.Info("this node's replica of the log does not have what the log has; reading that from another node")
	}
	f.stray, f.compared = true, time.Now()
}

// compare looks whether a replica that has strayed has the end of the chain now.
func (f *follower) compare(ctx context.Context) {
	if !f.stray || time.Since(f.compared) < compareEvery {
		return
	}
	f.compared = time.Now()
	got, err := f.m.o.Log.Read(ctx, max(f.chain.head, 1), 1)
	if err == nil && len(got) == 1 && got[0].Seq == f.chain.head && HashOf(got[0].Body) == f.chain.hash {
		f.m.o.Logger.Info("this node's replica has what the log has")
		f.stray = false
	}
}

// apply applies messages. If one does not fit, those before it are applied all the same.
func (f *follower) apply(messages []Message) (err error) {
	var bodies [][]byte
	for _, m := range messages {
		var e Entry
		var whole bool
		if e, whole, err = f.chain.next(m); err != nil {
			break
		}
		f.resigned = e.Kind == Resign
		if e.Kind == Lead {
			f.m.o.Logger.Info("a node leads", "node", e.Node, "epoch", e.Epoch)
		}
		if whole && e.Kind == Commit {
			bodies = append(bodies, e.Body)
		}
	}
	if len(bodies) > 0 || f.chain.Number >= f.stored+storeEvery {
		if e := f.m.o.Tracker.Apply(bodies, f.chain.Position); e != nil {
			return e
		}
		f.stored = f.chain.Number
	}
	f.m.at(f.chain.Position)
	return err
}

// replace finds a place from which this node can follow, after the log did not go on
// from c. That is another place of the log, if it has gone back and has been continued
// from the same tracker. Otherwise the node asks the others for a copy of their tracker.
func (m *Member) replace(ctx context.Context, c chain, why error) chain {
	m.o.Logger.Warn("this node cannot follow the log", "reason", why)
	for ctx.Err() == nil {
		m.say(Behind, why.Error())
		if seq, ok := m.find(ctx, c.Position); ok && !errors.Is(why, ErrApart) {
			m.o.Logger.Info("the log goes on from this node's tracker at another place", "message", seq)
			c.head, c.hash, c.parts = seq-1, c.Hash, nil
			return c
		}
		own := m.o.Tracker.Position()
		from, ok := m.peers.source(time.Now(), &own)
		if !ok {
			m.say(Behind, fmt.Sprintf("%v; no other node has a copy of the tracker to give", why))
			pause(ctx, m.o.Pace.Silence/2)
			continue
		}
		m.say(Behind, fmt.Sprintf("%v; it gets a copy of the tracker of %s", why, from))
		begun := time.Now()
		err := m.fetch(ctx, from)
		if err == nil {
			m.o.Logger.Info("this node has a copy of the tracker, and follows from there", "of", from, "entry", m.o.Tracker.Position().Number, "took", time.Since(begun).Round(time.Millisecond))
			break
		}
		if ctx.Err() == nil {
			m.o.Logger.Warn("no copy of the tracker could be had; trying again", "of", from, "error", err)
		}
		pause(ctx, m.o.Pace.Silence/2)
	}
	return newChain(m.o.Tracker.Position())
}

// find looks through the log for the entry that follows a position: a lead, as every
// other one is where it belongs.
func (m *Member) find(ctx context.Context, at Position) (seq uint64, ok bool) {
	for from := uint64(1); ; {
		asking, cancel := context.WithTimeout(ctx, max(m.o.Pace.Answer, time.Second))
		messages, err := m.o.Log.Read(asking, from, readMost)
		cancel()
		if err != nil || len(messages) == 0 {
			return 0, false
		}
		for _, message := range messages {
			e, err := Decode(message.Body)
			if err == nil && e.Kind == Lead && e.Previous == at.Hash && e.Number == at.Number+1 {
				return message.Seq, true
			}
			from = message.Seq + 1
		}
	}
}

// fetch installs a copy of a peer's tracker.
func (m *Member) fetch(ctx context.Context, from string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	fetched := make(chan error, 1)
	go func() {
		err := m.o.Peers.Fetch(ctx, from, w)
		w.CloseWithError(err) // nil is the end of the copy
		fetched <- err
	}()
	err := m.o.Tracker.Install(r)
	r.CloseWithError(errors.New("the copy cannot be installed"))
	cancel()
	return errors.Join(err, <-fetched)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
