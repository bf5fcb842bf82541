package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/changes"
	"jobstream/jobs/intake"
	"jobstream/jobs/joblog"
	"jobstream/jobs/replica"
	"jobstream/status"
)

// member is what a node of a cluster has whether it leads or not: the tracker, the broker,
// its place among the others, and all that its doors read by. The core is there only while
// the node leads. It works on the parts of the member, and leaves them open.
type member struct {
	n       *Node
	store   *status.Store
	tracker *status.Replica // of the store, in the log
	broker  *broker.Broker
	machine *replica.Member
	waits   *intake.Waits // for jobs, whichever node leads
	changes *changes.Feed
	logs    *joblog.Dir // of jobs
	room    *room
	back    atomic.Pointer[api.Backend] // what stands behind the doors
	index   index
	passing *http.Transport // to the inner doors of other members
	inner   *http.Server    // that of this one; nil before it is open, and set before ended
	worker  memberWorker
	stop    context.CancelFunc
	ended   chan struct{} // closed when the machine has stopped
	stray   atomic.Bool   // a copy of a stream is, so leave sets them all aside

	grace   atomic.Pointer[context.Context] // what running jobs get at the end; set before stop
	address atomic.Pointer[string]          // where REST listens; nil = nowhere yet
	unclean error                           // of the last core, in good order; read after ended
}

// join makes the node a member of its cluster, and returns at once. It follows or leads as
// soon as a majority of the members is there.
func (n *Node) join(ctx context.Context) (err error) {
	m := &member{n: n, ended: make(chan struct{})}
	m.worker.max.Store(int32(n.o.Workers.Max))
	o := n.coreOptions()
	m.store, err = o.openStore(func(id jobs.ID) bool {
		c := n.core.Load()
		return c != nil && c.Submitter.Checked(id)
	})
	if err != nil {
		return err
	}
	m.tracker = m.store.Replica()
	if err := m.bootstrap(); err != nil {
		return errors.Join(err, m.store.Close())
	}
	m.broker, err = broker.Open(ctx, o.brokerOptions(n.o.Name))
	if err != nil {
		return errors.Join(err, m.store.Close())
	}
	n.o.Handlers.Artifacts.Share(m.broker.Files)
	m.waits, m.changes = intake.NewWaits(), changes.New(m.store, epochOf(m.store))
	m.logs, m.room = joblog.New(o.dirs.Logs, publishLogs(m.broker, n.log)), newRoom(o.dirs, o.Bounds.MinFree, n.log) //nolint:contextcheck // lines of a log have none
	m.store.Listen(m.waits.Committed)
	m.store.Listen(m.changes.Committed)
	m.broker.Peers.Serve(m.tracker.Snapshot)
	if err := m.broker.Peers.AnswerRemoved(m.removedName); err != nil {
		m.broker.Close() //nolint:contextcheck // it takes as long as it takes
		return errors.Join(err, m.store.Close())
	}
	m.machine = replica.New(replica.Options{
		Name: n.o.Name, Members: m.members, Log: m.broker.TrackerLog, Tracker: copied{m.tracker, m}, Peers: m.broker.Peers,
		Lead: m.lead, Info: m.info, Logger: n.log,
	})
	n.member = m
	n.nats.port = m.broker.Port()
	m.back.Store(m.backend())
	n.rest = n.newRest(m.back.Load(), m, m) //nolint:contextcheck // requests have their own
	m.passing = m.newTransport()
	close(n.watched) // nobody heals a member: it ends, and is started again
	n.stopWatch = func() {}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	go m.run(running)
	return nil
}

// members is how many the cluster has, with this one. Before the streams' own cluster has
// said so it is as many as the configuration has.
func (m *member) members() int {
	return cmp.Or(m.broker.Size(), max(m.n.o.Broker.Cluster.Members(), 1))
}

// copied is the tracker of a member. When a copy of another one replaces it, those who wait
// for jobs and who follow changes look at it anew.
type copied struct {
	*status.Replica
	m *member
}

func (c copied) Install(from io.Reader) error {
	err := c.Replica.Install(from)
	if err == nil {
		c.m.waits.Look()
		c.m.changes.Skip()
	}
	return err
}

// run is the life of the member.
func (m *member) run(ctx context.Context) {
	defer close(m.ended)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { m.askRemoved(ctx) })
	err := m.broker.Join(ctx)
	if err == nil {
		err = m.open() //nolint:contextcheck // its work ends with the member
	}
	if err == nil {
		var watching sync.WaitGroup
		watching.Go(func() { m.watchCopies(ctx) })
		watching.Go(func() { m.watch(ctx) })
		watching.Go(func() { m.keepRemoved(ctx) })
		m.n.serving.Go(func() { m.tidy(ctx) }) // it ends with ctx, or with the broker
		err = m.machine.Run(ctx)
		watching.Wait()
	}
	if err != nil && ctx.Err() == nil {
		m.n.breaks(err)
	}
}

// ErrAgain says that a node cannot go on as it is, but another one can that is opened in
// the same data folder; see [Node.Broken].
var ErrAgain = errors.New("the node has to be opened again")

// strayAgain is for how long the streams of a member are not set aside again: what has not
// helped a short while ago does not help.
const strayAgain = time.Hour

// watchCopies ends the node if a copy of a stream strays, so that the next one begins with
// empty copies, which the other members fill. The tracker stays.
func (m *member) watchCopies(ctx context.Context) {
	for {
		err := m.broker.WatchCopies(ctx)
		if err == nil {
			return
		}
		if e := m.n.dirs.sweepStray(time.Now().Add(-strayAgain)); e != nil {
			m.n.log.Error("this node needs an empty folder for the streams; stop it, remove that folder and start it", "folder", m.n.dirs.Broker, "reason", err, "error", e)
			continue
		}
		m.stray.Store(true)
		m.n.breaks(fmt.Errorf("%w: %w", ErrAgain, err))
		return
	}
}

// leave is [Node.Shutdown] of a member.
func (n *Node) leave(ctx context.Context) error {
	m := n.member
	n.rest.Drain()
	m.grace.Store(&ctx)
	m.waits.Close()
	m.changes.Close()
	m.worker.end()
	m.stop()
	<-m.ended
	n.closeDoor(ctx)
	m.close()
	m.broker.Close() //nolint:contextcheck // it takes as long as it takes
	n.serving.Wait()
	err := errors.Join(m.unclean, m.store.Close())
	if m.stray.Load() {
		to, e := n.dirs.setAside(asideStray)
		n.log.Warn("the copies of the streams are set aside; the other members have all", "folder", to)
		err = errors.Join(err, e)
	}
	return err
}

// How long a node that begins to lead tries to start its core. Other members of the cluster
// may still be choosing who leads the streams.
const (
	startLeading = 30 * time.Second
	startPause   = 200 * time.Millisecond
)

// lead is the time of this node as the leader: it has a core; see [replica.Options].
func (m *member) lead(ctx context.Context) error {
	n := m.n
	if err := m.up(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	c := n.core.Load()
	var why error
	watching, stop := context.WithCancel(ctx)
	defer stop()
	select {
	case why = <-m.stalls(watching):
	case <-ctx.Done():
		why = context.Cause(ctx)
	case why = <-c.loops.broken:
	case why = <-c.health.stuck:
		n.breaks(why)
	}
	defer m.stands(m.backend())
	// Without a majority nothing can be committed any more, so there is no good order.
	if ctx.Err() != nil && m.machine.Leads() {
		m.unclean = m.down(c) //nolint:contextcheck // ctx has ended
		return nil
	}
	n.changing.Lock()
	n.paused = c.Pool.Workers().Paused
	ended := n.down(why) //nolint:contextcheck // ctx may have ended
	n.changing.Unlock()
	<-ended
	if ctx.Err() != nil || errors.Is(why, replica.ErrDeposed) {
		return nil
	}
	return why
}

// up starts the core.
func (m *member) up(ctx context.Context) error {
	begun := time.Now()
	for {
		err := m.tryUp(ctx)
		switch {
		case err == nil:
			m.n.log.Info("this node serves", "took", time.Since(begun).Round(time.Millisecond))
			return nil
		case ctx.Err() != nil || time.Since(begun) > startLeading:
			return err
		}
		m.n.log.Warn("this node cannot serve yet; trying again", "error", err)
		sleep(ctx, startPause)
	}
}

// tryUp is one try. It is given up if the streams are not read.
func (m *member) tryUp(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := m.stalls(ctx)
	go func() {
		select {
		case why := <-stalled:
			cancel(why)
		case <-ctx.Done():
		}
	}()
	m.n.changing.Lock()
	defer m.n.changing.Unlock()
	return m.n.up(ctx)
}

// How often the leader looks whether it reads the streams, and how long it may not.
const (
	stallLook = time.Second
	stallTime = 10 * time.Second
)

// stalls returns a channel with an error when the streams have messages, and the tracker
// reads none for some time. The consumer of a reader lives on one server, and nothing comes
// if that server's copy of the stream is behind. Another try has consumers elsewhere.
func (m *member) stalls(ctx context.Context) <-chan error {
	found := make(chan error, 1)
	go func() {
		tick := time.NewTicker(stallLook)
		defer tick.Stop()
		since, last := time.Now(), m.store.Positions()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now := m.store.Positions()
			want, err := ends(ctx, m.store, m.broker)
			if now != last || err != nil || want == now || !m.machine.Leads() { // without the log it reads, and commits nothing
				since, last = time.Now(), now
				continue
			}
			if time.Since(since) > stallTime {
				found <- errors.New("the streams have messages that do not come")
				return
			}
		}
	}()
	return found
}

// down ends the core in good order.
func (m *member) down(c *core) error {
	m.n.stopRetention()
	ctx := context.Background()
	if grace := m.grace.Load(); grace != nil {
		ctx = *grace
	}
	err := c.drain(ctx)
	err = errors.Join(err, c.close())
	m.n.core.Store(nil)
	return err
}

// leased is the tracker for the pool. It finds a job only while no other node can lead, so
// that nothing starts here which has started elsewhere: a leader that was frozen or cut
// off learns late that it does not lead any more.
func (m *member) leased(s *status.Store) jobs.Tracker {
	if m == nil {
		return s
	}
	return leasedTracker{s, m.machine}
}

type leasedTracker struct {
	jobs.Tracker
	machine *replica.Member
}

func (t leasedTracker) Find(seq uint64) (*jobs.Job, error) {
	j, err := t.Tracker.Find(seq)
	if err == nil && !t.machine.Leads() {
		return nil, errors.New("another node may lead")
	}
	return j, err
}

// why is the reason why this node neither leads nor follows a leader; "" if it does.
func (m *member) why() string {
	if why := m.broker.Waiting(); why != "" {
		return waitingFor(why)
	}
	return m.machine.State().Why
}

func waitingFor(what string) string { return "waiting for " + what }

// Check is the health of this node; see [httpapi.Health].
func (m *member) Check(ctx context.Context) map[string]error {
	checks := map[string]error{"tracker": m.store.Health()}
	if c := m.n.core.Load(); c != nil {
		maps.Copy(checks, c.health.Check(ctx))
	} else if m.room.least > 0 {
		checks["disk"] = m.room.look()
	}
	checks["cluster"] = nil
	if why := m.why(); why != "" {
		checks["cluster"] = errors.New(why)
	} else if _, led := m.machine.Leader(); !led {
		checks["cluster"] = errors.New("this node knows of none that leads")
	}
	return checks
}

var _ httpapi.Health = (*member)(nil)

// memberInfo is what the members tell each other beside what the machine needs.
type memberInfo struct {
	Role    string      `json:"role"`
	Version string      `json:"version,omitempty"`
	Address string      `json:"address,omitempty"`
	Waiting string      `json:"waiting,omitempty"` // what it waits for, besides what the machine says
	Mark    status.Mark `json:"mark,omitzero"`
	Workers int         `json:"workers,omitempty"` // how many jobs it does at a time, at most
}

func (m *member) info() json.RawMessage {
	i := memberInfo{Role: roleFull, Version: m.n.o.Version, Waiting: m.broker.Waiting(), Mark: m.tracker.Mark(), Workers: int(m.worker.max.Load())}
	if at := m.address.Load(); at != nil {
		i.Address = *at
	}
	b, err := json.Marshal(&i)
	if err != nil {
		panic(err) // texts always marshal
	}
	return b
}

func infoOf(h *replica.Hello) (i memberInfo) {
	_ = json.Unmarshal(h.Info, &i) // a member of another version may say nothing
	return i
}

// serves notes where REST listens. An address of all interfaces is told as the one where
// the other members reach this one.
func (m *member) serves(l net.Listener) {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if known, _, err := net.SplitHostPort(m.n.o.Broker.Cluster.Listen); err == nil {
			host = known
		}
	}
	scheme := "http://"
	if m.n.o.REST.TLS != nil {
		scheme = "https://"
	}
	at := scheme + net.JoinHostPort(host, port)
	m.address.Store(&at)
}

// silentFor is how long a member may say nothing before it counts as gone.
const silentFor = 2 * time.Second

// Nodes lists the members; see [api.Nodes].
func (m *member) Nodes() []api.NodeInfo {
	leader, led := m.machine.Leader()
	members := slices.DeleteFunc(m.machine.Known(), func(h replica.Hello) bool { return m.removedName(h.Name) })
	members = append(members, m.machine.Self())
	slices.SortFunc(members, func(a, b replica.Hello) int { return strings.Compare(a.Name, b.Name) })
	differ := differing(members, leader.Name)
	all := make([]api.NodeInfo, len(members))
	for k := range members {
		h := &members[k]
		i := infoOf(h)
		n := api.NodeInfo{
			Name: h.Name, Role: i.Role, Leader: led && h.Name == leader.Name, Position: h.Number, Version: i.Version, Address: i.Address, Why: h.Why,
			Hash: i.Mark.Hash, HashAt: i.Mark.Sealed, Differs: differ[h.Name], ClockMS: h.Ahead.Milliseconds(),
			Workers: i.Workers,
		}
		if led && leader.Number > h.Number {
			n.Lag = leader.Number - h.Number
		}
		if n.Why == "" && i.Waiting != "" {
			n.Why = waitingFor(i.Waiting)
		}
		if h.Name == m.n.o.Name {
			n.Why = m.why()
		} else if silent := time.Since(h.Heard); silent > silentFor {
			n.Leader, n.Workers, n.Silent, n.Why = false, 0, true, fmt.Sprintf("it has said nothing for %v", silent.Round(time.Second))
		}
		if n.Why == "" && n.Differs {
			n.Why = whyDiffers
		}
		n.Ready = n.Why == ""
		all[k] = n
	}
	return all
}
