package broker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// This file is what a broker does differently as a member of a cluster. Its streams live on
// several servers, which need a majority of them. So [Open] does not wait for the streams;
// [Broker.Join] does. Nothing here repairs the folder: the other members have it all.

// Cluster makes a broker a member of a cluster.
type Cluster struct {
	Name   string
	Listen string   // host:port, where the other members connect; port -1 = any free one
	Routes []string // host:port of every member; this one may be among them
	// Advertise is the host:port that members tell one another for this one. Only a member
	// behind a proxy needs it; "" = Listen.
	Advertise string
	Replicas  int // copies of each stream; 3 if 0

	User, Password string      // with which the members know one another
	TLS            *tls.Config // encrypts the routes, for either direction; nil = they are not encrypted
}

const (
	defaultReplicas = 3
	// A member that does not answer so many pings is cut off, and its lanes can be made
	// elsewhere. A frozen process closes no connection.
	routePing     = 2 * time.Second
	routePingsOut = 2
	joinPause     = 50 * time.Millisecond  // between two tries to join
	joinLook      = 200 * time.Millisecond // for a look at a stream
	joinCall      = 2 * time.Second        // for other requests
	joinPatience  = 3 * time.Second        // until the log says what a start waits for
)

// clustered says whether this server is a member of a cluster.
func (s *Server) clustered() bool { return s.o.Cluster != nil }

// replicas is the number of copies of each stream.
func (o *Options) replicas() int {
	switch {
	case o.Cluster == nil:
		return 1
	case o.Cluster.Replicas == 0:
		return defaultReplicas
	}
	return o.Cluster.Replicas
}

// fill adds what a member needs to the options of nats-server. Such a server listens from
// its start on: with DontListen it would never open its routes. Without a port for clients
// it has one on loopback that admits nobody, see [accounts.Check].
func (c *Cluster) fill(o *server.Options) error {
	host, port, err := splitAddress(c.Listen)
	if err != nil {
		return err
	}
	o.DontListen = false
	if o.Port == 0 {
		o.Host, o.Port = "127.0.0.1", -1
	}
	o.Cluster = server.ClusterOpts{
		Name: c.Name, Host: host, Port: port, Advertise: c.Advertise, NoAdvertise: true,
		Username: c.User, Password: c.Password, TLSConfig: c.TLS,
		PingInterval: routePing, MaxPingsOut: routePingsOut,
	}
	if c.TLS != nil {
		o.Cluster.TLSTimeout = ackTimeout.Seconds()
	}
	for _, r := range c.Routes {
		if _, _, err := splitAddress(r); err != nil {
			return err
		}
		u := &url.URL{Scheme: "nats-route", Host: r}
		if c.User != "" {
			u.User = url.UserPassword(c.User, c.Password)
		}
		o.Routes = append(o.Routes, u)
	}
	return nil
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < -1 || port == 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q is not an address of a member: it needs a host and a port, like 10.0.0.1:6222", address)
	}
	return host, port, nil
}

// others is the number of members besides this one, as configured.
func (c *Cluster) others() int {
	n := len(c.Routes)
	if slices.Contains(c.Routes, c.Listen) {
		n--
	}
	return n
}

// Members is the number of members, as configured.
func (c *Cluster) Members() int { return c.others() + 1 }

// openMember starts the server of a member, and the parts that need no stream to begin.
func (b *Broker) openMember(ctx context.Context) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.openParts(); err != nil { //nolint:contextcheck // they live until Close
		return err
	}
	b.TrackerLog, b.Peers, b.Files = newTrackerLog(b.Server), newPeers(b.Server), &Files{b.Server}
	if err := errors.Join(b.TrackerLog.open(), b.Peers.open()); err != nil { //nolint:contextcheck // likewise
		return err
	}
	return errors.Join(b.accounts.openRefusals(), b.pub.Flush(ctx))
}

// Join waits until the cluster has a quorum, makes the streams that are not there yet, and
// opens what needs them. It is called once. Until it returns, [Broker.Waiting] says why it
// does not, and the log, if it takes long.
func (b *Broker) Join(ctx context.Context) error {
	err := b.join(ctx)
	b.waiting.Store(nil)
	return err
}

func (b *Broker) join(ctx context.Context) error {
	begun, logged := time.Now(), ""
	for {
		err := b.tryJoin(ctx)
		if err == nil {
			if logged != "" {
				b.log.Info("the cluster has a quorum", "cluster", b.o.Cluster.Name, "waited", time.Since(begun).Round(time.Millisecond))
			}
			return nil
		}
		if final(err) {
			return err
		}
		text := b.missing(err)
		b.waiting.Store(&text)
		if text != logged && time.Since(begun) > joinPatience {
			b.log.Warn("waiting for the cluster", "cluster", b.o.Cluster.Name, "for", text)
			logged = text
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster has no quorum (%s): %w", text, context.Cause(ctx))
		case fatal := <-b.fatal:
			return fmt.Errorf("the broker cannot go on: %s", fatal)
		case <-time.After(joinPause):
		}
	}
}

// tryJoin is one try. Its error may be a matter of time.
func (b *Broker) tryJoin(ctx context.Context) error {
	for _, cfg := range b.o.streams() {
		if err := b.makeStream(ctx, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinCall)
	defer cancel()
	return b.accounts.openGate(ctx)
}

// makeStream makes a stream that is not there. While a cluster elects it answers nothing, so
// it is asked again soon.
func (b *Broker) makeStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	short, cancel := context.WithTimeout(ctx, joinLook)
	defer cancel()
	_, err := b.js.Stream(short, cfg.Name)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	long, cancel := context.WithTimeout(ctx, joinCall)
	defer cancel()
	_, err = b.js.CreateStream(long, cfg)
	return err
}

// final says whether an error of a try to join comes again each time.
func final(err error) bool {
	var e *jetstream.APIError
	return errors.As(err, &e) && (e.ErrorCode == invalidStream || e.ErrorCode == jetstream.JSErrCodeStreamNameInUse)
}

// invalidStream is nats-server's code for settings that no stream can have.
const invalidStream = 10052

// missing says what a cluster lacks whose streams cannot be used yet.
func (b *Broker) missing(err error) string {
	here := b.Members()
	if others := b.o.Cluster.others(); len(here) < others && 2*(len(here)+1) <= others+1 {
		text := fmt.Sprintf("%d of %d other members are connected", len(here), others)
		if len(here) > 0 {
			text += " (" + strings.Join(here, ", ") + ")"
		}
		return text + ", and a majority is needed; routes: " + strings.Join(b.o.Cluster.Routes, ", ")
	}
	return "an election among the members: " + err.Error()
}

// How often a server looks at its copies, and how long the looks must agree. An election
// is no news, and a copy that has just heard from a new leader may not know yet that it is
// behind.
const (
	copiesLook = 300 * time.Millisecond
	copiesTime = 1500 * time.Millisecond
)

// ErrStray says that a copy of this server gets nothing any more, though those of all other
// members have everything. It is so after the streams have gone back and this copy has not:
// nats-server takes nothing away that was committed here. Only an empty folder helps.
var ErrStray = errors.New("a copy of this server does not become that of the others")

// strayTime is how long a copy that is not current may get nothing.
const strayTime = 20 * time.Second

// WatchCopies looks at this server's copies of the streams, and says by [Broker.Waiting]
// which of them are behind. It begins with all of them. Whoever waits for that after each
// stop always leaves a majority of servers that have everything. It returns nil at the end
// of ctx, or [ErrStray].
func (b *Broker) WatchCopies(ctx context.Context) error {
	defer b.waiting.Store(nil)
	all := "its copies of the streams to catch up"
	b.waiting.Store(&all)
	var current, behind time.Time // when a look said so last
	still := make(stillness)
	for behind = time.Now(); pause(ctx, copiesLook) == nil; {
		text, streams := b.behind()
		if text == "" && b.Waiting() != "" {
			text, streams = b.further(ctx)
		}
		now := time.Now()
		if text == "" {
			current = now
		} else {
			behind = now
		}
		switch {
		case text == "" && now.Sub(behind) >= copiesTime:
			b.waiting.Store(nil)
		case text != "" && (now.Sub(current) >= copiesTime || b.Waiting() != ""):
			b.waiting.Store(&text)
		}
		if b.Waiting() == "" {
			clear(still)
		} else if still.lasts(b.copies(), streams, now) > strayTime && b.othersCurrent(ctx) {
			return fmt.Errorf("%w: it waits for %s", ErrStray, text)
		}
	}
	return nil
}

// stillness is since when each copy has got nothing, while any of them is behind. nats-server
// may call a copy current between two tries to catch up.
type stillness map[string]struct {
	state string
	since time.Time
}

// lasts notes what the copies have, and says for how long one of those that are behind now
// has got nothing.
func (s stillness) lasts(copies map[string]server.StreamState, behind []string, now time.Time) (longest time.Duration) {
	for name := range copies {
		is, was := copies[name], s[name]
		if state := fmt.Sprint(is.FirstSeq, is.LastSeq, is.Msgs); state != was.state {
			was.state, was.since = state, now
			s[name] = was
		}
	}
	for _, name := range behind {
		if was, ok := s[name]; ok {
			longest = max(longest, now.Sub(was.since))
		}
	}
	return longest
}

// behind says which copies of this server are not current; "" if all are.
func (b *Broker) behind() (text string, streams []string) {
	for _, e := range b.srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		switch e.Type {
		case server.HealthzErrorConsumer: // it lives on one server, and is made anew
			continue
		case server.HealthzErrorStream:
			text = "its copy of stream " + e.Stream + " to catch up"
			streams = append(streams, e.Stream)
		default:
			text = e.Error
		}
	}
	return text, streams
}

// further says which copies of this server have more than their stream, which has gone back.
func (b *Broker) further(ctx context.Context) (text string, streams []string) {
	own := b.copies() // before the streams, which grow
	for _, cfg := range b.o.streams() {
		stream, err := b.Streams.find(ctx, cfg.Name)
		if err != nil {
			return fmt.Sprintf("stream %s to have a leader", cfg.Name), nil
		}
		if own[cfg.Name].LastSeq > stream.CachedInfo().State.LastSeq {
			text = "its copy of stream " + cfg.Name + " to lose what the stream does not have"
			streams = append(streams, cfg.Name)
		}
	}
	return text, streams
}

// othersCurrent says whether all other members have everything.
func (b *Broker) othersCurrent(ctx context.Context) bool {
	for _, cfg := range b.o.streams() {
		stream, err := b.Streams.find(ctx, cfg.Name)
		if err != nil || stream.CachedInfo().Cluster == nil {
			return false
		}
		for _, p := range stream.CachedInfo().Cluster.Replicas {
			if p.Name != b.o.Node && (!p.Current || p.Offline) {
				return false
			}
		}
	}
	return true
}

// copies are the states of this server's copies of the streams.
func (b *Broker) copies() map[string]server.StreamState {
	all := make(map[string]server.StreamState)
	info, err := b.srv.Jsz(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true})
	if err != nil {
		return all // it has none yet
	}
	for _, account := range info.AccountDetails {
		for i := range account.Streams {
			all[account.Streams[i].Name] = account.Streams[i].State
		}
	}
	return all
}

// Waiting is what [Broker.Join] and [Broker.WatchCopies] wait for; "" if they do not wait.
func (b *Broker) Waiting() string {
	if text := b.waiting.Load(); text != nil {
		return *text
	}
	return ""
}

// Size is the number of members, as the streams' own cluster has it; 0 if it does not know.
// A member belongs to it as soon as it has come, and until it is removed.
func (b *Broker) Size() int {
	info, err := b.srv.Jsz(nil)
	if err != nil || info.Meta == nil {
		return 0
	}
	return info.Meta.Size
}

// Members are the names of the other members that are connected now.
func (b *Broker) Members() []string {
	routes, err := b.srv.Routez(nil)
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range routes.Routes {
		if !slices.Contains(names, r.RemoteName) {
			names = append(names, r.RemoteName)
		}
	}
	slices.Sort(names)
	return names
}

// RouteAddr is where the other members connect; nil if there are none.
func (s *Server) RouteAddr() net.Addr {
	if !s.clustered() {
		return nil
	}
	return s.srv.ClusterAddr()
}

// soon makes a request. While the members of a cluster elect who leads a stream, nobody
// answers, so it is made again and again. That nothing was found is an answer.
func (s *Server) soon(ctx context.Context, request func(ctx context.Context) error) error {
	if !s.clustered() {
		return request(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	for look := joinLook; ; look *= 2 { // an answer may take long on a busy machine
		short, cancel := context.WithTimeout(ctx, look)
		err := request(short)
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) || ctx.Err() != nil {
			return err
		}
		_ = pause(ctx, joinPause) // the next look ends with ctx
	}
}

// pause waits for d. The error is the cause of ctx's end, if that comes first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// awaitInterest waits until messages to a subject of another member find their way there.
// That a consumer has been made is known earlier than where it listens. Without an end it
// would not be worth waiting for: a request that is refused is made again.
func (s *Server) awaitInterest(ctx context.Context, subject string) error {
	for end := time.Now().Add(joinCall); s.clustered() && time.Now().Before(end); {
		if s.srv.GlobalAccount().SubscriptionInterest(subject) {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Lead prepares the broker for a node that begins to lead. It gives the streams today's
// settings. secret is known to all members and to nobody else: it makes the key that seals
// messages. Only the first one counts.
func (b *Broker) Lead(ctx context.Context, secret []byte) error {
	if b.seal == nil {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("seal"))
		b.seal = newSeal(sealKey{Key: mac.Sum(nil)})
	}
	if err := b.updateStreams(ctx); err != nil {
		return err
	}
	b.Streams.reset()
	return nil
}

// updateStreams gives the streams today's settings. Those whose leader does not answer in
// time keep the settings of the last node that led: that must not hold up this one.
func (b *Broker) updateStreams(ctx context.Context) error {
	all := b.o.streams()
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, cfg := range all {
		group.Go(func() {
			short, cancel := b.patience(ctx)
			defer cancel()
			err := b.soon(short, func(ctx context.Context) error {
				_, err := b.js.UpdateStream(ctx, cfg)
				return err
			})
			switch {
			case err == nil || ctx.Err() != nil:
			case final(err):
				errs[i] = fmt.Errorf("cannot change the settings of stream %s: %w", cfg.Name, err)
			default:
				b.log.Warn("a stream keeps the settings that it has", "stream", cfg.Name, "error", err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// reset notes that JOBS has room for no extra messages.
func (s *Streams) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slack = 0
}

// A consumer lives on one member, which may be dead: then nobody answers for it. The next
// one is made on a member that is chosen anew.
const consumerCall = time.Second

// patience bounds a request about a consumer.
func (s *Server) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.clustered() {
		return context.WithTimeout(ctx, consumerCall)
	}
	return context.WithTimeout(ctx, ackTimeout)
}

const (
	manyLanes = 16               // that are made at a time
	lanesTime = 20 * time.Second // for all of them
)

// openLater opens lanes of a cluster, and has them made.
func (l *Lanes) openLater(lanes []jobs.Lane) error {
	l.calls.Lock()
	defer l.calls.Unlock()
	if l.receiver == nil {
		return errors.New("the lanes are closed")
	}
	l.pulls.open(lanes, true)
	l.makeLater(lanes)
	return nil
}

// makeLater makes lanes of a cluster, which takes a while if there are many. Nobody waits
// for that, least of all the submissions of those whose leader has stopped. Requests of a
// lane are sent when it is there.
func (l *Lanes) makeLater(lanes []jobs.Lane) {
	l.later.Go(func() {
		ctx, cancel := context.WithTimeout(l.open, lanesTime)
		defer cancel()
		var group sync.WaitGroup
		room := make(chan struct{}, manyLanes)
		for _, lane := range lanes {
			room <- struct{}{}
			group.Go(func() {
				defer func() { <-room }()
				if !l.pulls.has(lane) {
					return // it was closed
				}
				err := l.makeSomewhere(ctx, lane)
				if err != nil && l.open.Err() == nil {
					l.server.log.Error("a lane cannot be made; trying again", "error", err)
				}
				for _, r := range l.pulls.made(lane, err == nil) {
					if err := l.request(&r); err != nil {
						return // the connection has ended, and with it all requests
					}
				}
			})
		}
		group.Wait()
	})
}

// makeSomewhere makes a lane on a member that lives.
func (l *Lanes) makeSomewhere(ctx context.Context, lane jobs.Lane) error {
	for {
		short, cancel := l.server.patience(ctx)
		err := l.deleteLane(short, lane)
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil // the member that had it does not answer; the cluster forgets it all the same
		}
		cancel()
		if err == nil {
			short, cancel := l.server.patience(ctx)
			err = l.makeLane(short, lane)
			cancel()
		}
		if err == nil {
			return nil
		}
		if pause(ctx, joinPause) != nil {
			return err
		}
	}
}

// streams are the settings of all streams.
func (o *Options) streams() []jetstream.StreamConfig {
	all := []jetstream.StreamConfig{o.jobsConfig(0), o.statusConfig(), o.notificationsConfig()}
	if o.Cluster != nil {
		all = append(all, o.trackerConfig(), o.filesConfig())
	}
	return all
}

// checkKind refuses the folder of a cluster to a server that is alone, and the other way
// round. nats-server would delete streams that its cluster does not know.
func (f folder) checkKind(clustered bool) error {
	member, err := exists(filepath.Join(string(f), "jetstream", server.DEFAULT_SYSTEM_ACCOUNT, "_js_", "_meta_"))
	if err != nil {
		return err
	}
	streams, err := os.ReadDir(f.streams())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case member && !clustered:
		return fmt.Errorf("%s belongs to a member of a cluster, and broker.cluster is not set; set it as before, or choose another data.dir", f)
	case !member && clustered && len(streams) > 0:
		return fmt.Errorf("%s belongs to a server without a cluster, and a cluster would delete its streams; choose an empty data.dir for this member, or leave broker.cluster out", f)
	}
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
