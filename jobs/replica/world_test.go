package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file is a world of several members in memory, with everything that can go wrong
// between them. Its time is that of a synctest bubble.

var (
	errLost = errors.New("lost")
	errDead = errors.New("the node is dead")
)

// world has one log, and members that come and go.
type world struct {
	mu       sync.Mutex
	rnd      *rand.Rand
	calm     bool // nothing goes wrong any more
	messages []Message
	acked    []string // bodies that some leader has acknowledged
	faults   []string // what must never happen
	nodes    []*testNode
	lives    int
	copies   int // of trackers that were installed
}

func newWorld(seed uint64, members int) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1))}
	for i := range members {
		w.nodes = append(w.nodes, &testNode{w: w, name: string(rune('a' + i)), disk: &testDisk{}, reads: oldFormat})
	}
	return w
}

// chance is true with a probability of one in n, while the world is not calm.
func (w *world) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm && w.rnd.IntN(n) == 0
}

func (w *world) upTo(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rnd.Int64N(int64(d) + 1))
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// The formats of two programs. Bodies in the later one begin with it.
const oldFormat, newFormat Format = 1, 2

func formatOf(body string) Format {
	if strings.HasPrefix(body, newFormat.String()) {
		return newFormat
	}
	return oldFormat
}

// testDisk is what a node keeps over its death.
type testDisk struct {
	Bodies []string
	At     Position
}

// testNode is a node: a process that may be dead, frozen or cut off.
type testNode struct {
	w    *world
	name string
	disk *testDisk // guarded by w.mu
	// reads is the latest format of its program. Some starts are those of another one.
	reads Format
	kept  []Message // what its replica of the log has, and nothing else, if it has not gone back as the others have

	life *life // nil while it is dead
}

// life is one process of a node. It is the node's log, tracker and peers.
type life struct {
	w    *world
	n    *testNode
	id   int
	disk *testDisk
	bell chan struct{}
	ears chan []byte

	ctx    context.Context // ends with the process
	kill   context.CancelFunc
	run    context.Context // ends when the process shall end by itself
	stop   context.CancelFunc
	ended  chan struct{}
	member *Member
	err    error // of Run, after ended

	mu      sync.Mutex
	thawed  chan struct{} // nil while it is not frozen
	cut     bool
	visible int  // messages that its replica of the log has
	seal    Seal // while it leads
	writes  Format
	count   int
}

func (n *testNode) start() {
	if n.w.chance(4) {
		n.reads = newFormat
	}
	n.w.mu.Lock()
	n.w.lives++
	l := &life{w: n.w, id: n.w.lives, n: n, disk: n.disk, bell: make(chan struct{}, 1), ears: make(chan []byte, 64), ended: make(chan struct{})}
	n.w.mu.Unlock()
	l.ctx, l.kill = context.WithCancel(context.Background())
	l.run, l.stop = context.WithCancel(l.ctx)
	l.member = New(Options{Name: n.name, Members: func() int { return len(n.w.nodes) }, Log: l, Tracker: l, Peers: l, Lead: l.leads})
	n.w.mu.Lock()
	n.life = l
	n.w.mu.Unlock()
	go func() {
		defer close(l.ended)
		l.err = l.member.Run(l.run)
	}()
}

// end ends the process: by its death, or in good order.
func (n *testNode) end(cleanly bool) {
	n.w.mu.Lock()
	l := n.life
	n.life = nil
	n.w.mu.Unlock()
	if !cleanly {
		l.kill()
	}
	l.stop()
	l.freeze(false)
	<-l.ended
	l.kill()
}

func (l *life) freeze(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case yes && l.thawed == nil:
		l.thawed = make(chan struct{})
	case !yes && l.thawed != nil:
		close(l.thawed)
		l.thawed = nil
	}
}

func (l *life) setCut(yes bool) {
	l.mu.Lock()
	l.cut = yes
	l.mu.Unlock()
}

// alive waits while the process is frozen. It is false if the process is dead.
func (l *life) alive() bool {
	for {
		l.mu.Lock()
		thawed := l.thawed
		l.mu.Unlock()
		if l.ctx.Err() != nil {
			return false
		}
		if thawed == nil {
			return true
		}
		select {
		case <-thawed:
		case <-l.ctx.Done():
		}
	}
}

// reach is nil if the process can reach the log now.
func (l *life) reach(ctx context.Context) error {
	if !l.alive() {
		return errDead
	}
	time.Sleep(l.w.upTo(3 * time.Millisecond))
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	switch {
	case cut || l.w.chance(60):
		return l.noAnswer(ctx)
	case l.w.chance(60):
		return errLost
	}
	return nil
}

// noAnswer is what a call gets whose answer is lost.
func (l *life) noAnswer(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ctx.Done():
		return errDead
	}
}

func (w *world) append(after uint64, entry []byte) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := uint64(len(w.messages))
	if last != after {
		return 0, ErrRefused
	}
	w.messages = append(w.messages, Message{Seq: last + 1, Body: slices.Clone(entry)})
	for _, n := range w.nodes {
		if n.life != nil {
			select {
			case n.life.bell <- struct{}{}:
			default:
			}
		}
	}
	return last + 1, nil
}

func (l *life) Append(ctx context.Context, after uint64, entry []byte) (uint64, error) {
	if err := l.reach(ctx); err != nil {
		return 0, err
	}
	if l.w.chance(40) { // it gets there late
		d := l.w.upTo(2 * time.Second)
		copied := slices.Clone(entry)
		go func() {
			time.Sleep(d)
			_, _ = l.w.append(after, copied)
		}()
		return 0, l.noAnswer(ctx)
	}
	seq, err := l.w.append(after, entry)
	if l.w.chance(40) {
		return 0, l.noAnswer(ctx)
	}
	if !l.alive() {
		return 0, errDead
	}
	return seq, err
}

func (l *life) Last(ctx context.Context) (Message, error) {
	if err := l.reach(ctx); err != nil {
		return Message{}, err
	}
	old := l.w.chance(10)
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	n := len(l.w.messages)
	if old { // an old leader of the log answers
		n = max(n-l.w.rnd.IntN(4), 0)
	}
	if n == 0 {
		return Message{}, nil
	}
	return l.w.messages[n-1], nil
}

func (l *life) Next(ctx context.Context, from uint64) (Message, error) {
	if err := l.reach(ctx); err != nil {
		return Message{}, err
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if int(from) > len(l.w.messages) {
		return Message{}, nil
	}
	return l.w.messages[from-1], nil
}

func (l *life) Read(ctx context.Context, from uint64, most int) ([]Message, error) {
	if err := l.reach(ctx); err != nil {
		return nil, err
	}
	if kept := l.n.kept; kept != nil {
		kept = kept[min(int(from)-1, len(kept)):]
		return slices.Clone(kept[:min(most, len(kept))]), nil
	}
	late := l.w.chance(4)
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	n := len(l.w.messages)
	if late { // the replica is behind
		n = max(l.visible, n-l.w.rnd.IntN(20))
	}
	l.visible = min(max(l.visible, n), len(l.w.messages))
	if int(from) > l.visible {
		return nil, nil
	}
	return slices.Clone(l.w.messages[from-1 : min(l.visible, int(from)-1+most)]), nil
}

func (l *life) Bell() <-chan struct{} { return l.bell }

func (l *life) Tell(hello []byte) error {
	if !l.alive() {
		return errDead
	}
	if l.w.chance(10) {
		return nil
	}
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for _, n := range l.w.nodes {
		if n.life != nil && n.life != l && !cut && !n.life.isCut() {
			select {
			case n.life.ears <- hello:
			default:
			}
		}
	}
	return nil
}

func (l *life) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

func (l *life) Heard() <-chan []byte { return l.ears }

func (l *life) Fetch(ctx context.Context, member string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := l.reach(ctx); err != nil {
		return err
	}
	l.w.mu.Lock()
	i := slices.IndexFunc(l.w.nodes, func(n *testNode) bool { return n.name == member && n.life != nil })
	if i < 0 {
		l.w.mu.Unlock()
		return errLost
	}
	b, err := json.Marshal(l.w.nodes[i].disk)
	l.w.mu.Unlock()
	if err != nil {
		return err
	}
	if l.w.chance(4) {
		b = b[:len(b)/2]
		_, _ = to.Write(b)
		return errLost
	}
	_, err = to.Write(b)
	return err
}

func (l *life) Position() Position {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.disk.At
}

func (l *life) Apply(bodies [][]byte, at Position) error {
	if !l.alive() {
		return errDead
	}
	if l.w.chance(100) {
		return errors.New("the disk is full")
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for _, b := range bodies {
		if f := formatOf(string(b)); f > l.n.reads {
			l.w.faults = append(l.w.faults, fmt.Sprintf("%s gets an entry in format %v, and reads %v", l.n.name, f, l.n.reads))
		}
		l.disk.Bodies = append(l.disk.Bodies, string(b))
	}
	l.disk.At = at
	return nil
}

func (l *life) Lead(seal Seal) {
	l.mu.Lock()
	l.seal = seal
	l.mu.Unlock()
}

func (l *life) Follow() {
	l.mu.Lock()
	l.seal = nil
	l.mu.Unlock()
}

func (l *life) Format() Format { return l.n.reads }

func (l *life) Raise(to Format) {
	l.mu.Lock()
	l.writes = max(l.writes, to)
	l.mu.Unlock()
}

func (l *life) Snapshot(func(int64, io.WriterTo) error) error { return nil }

func (l *life) Install(from io.Reader) error {
	b, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	var d testDisk
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	*l.disk = d
	l.w.copies++
	return nil
}

// leads commits one transaction after the other, as the projector does.
func (l *life) leads(ctx context.Context) error {
	for ctx.Err() == nil {
		l.commit()
		time.Sleep(l.w.upTo(100 * time.Millisecond))
		if l.w.chance(200) {
			return errors.New("it has had enough")
		}
	}
	if !errors.Is(context.Cause(ctx), ErrDeposed) {
		l.commit()
	}
	return nil
}

func (l *life) commit() {
	l.count++
	body := fmt.Sprintf("%s-%d-%d", l.n.name, l.id, l.count)
	l.mu.Lock()
	if l.writes == newFormat {
		body = newFormat.String() + " " + body
	}
	l.mu.Unlock()
	if l.w.chance(500) {
		body += string(make([]byte, maxBody+100)) // in two parts
	}
	at, err := l.seal([]byte(body))
	if err != nil || l.w.chance(100) || !l.alive() {
		return // rolled back
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.ctx.Err() != nil {
		return
	}
	l.disk.Bodies = append(l.disk.Bodies, body)
	l.disk.At = at
	l.w.acked = append(l.w.acked, body)
}

// watch sees to it that no two nodes lead at the same time.
func (w *world) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var leaders []string
		w.mu.Lock()
		nodes := slices.Clone(w.nodes)
		var lives []*life
		for _, n := range nodes {
			if n.life != nil {
				lives = append(lives, n.life)
			}
		}
		w.mu.Unlock()
		for _, l := range lives {
			if l.member.Leads() {
				leaders = append(leaders, l.n.name)
			}
		}
		if len(leaders) > 1 {
			w.fault("at one moment %v lead", leaders)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
