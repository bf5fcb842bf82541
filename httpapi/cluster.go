package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// Cluster is what the door of a node needs of its cluster.
type Cluster interface {
	// Leads says that this node decides now.
	Leads() bool
	// Current waits until this node knows all that the leader knew at the call.
	Current(ctx context.Context) error
	// Send sends a request to [Server.Inner] of the node that leads, and waits for one that
	// does. It is sent again after an answer that was lost only if it is repeatable, and
	// after an answer with the header [Undone].
	Send(r *http.Request, repeatable bool) (*http.Response, error)
	// Position is the number of the last entry that this node knows, and how old that is.
	Position() (number uint64, age time.Duration)
}

// Undone is the header of an answer of a node that does not lead: nothing was done.
const Undone = "Jobstream-Undone"

// Headers of requests from door to door.
const (
	passedHeader   = "Jobstream-Passed-On"
	positionHeader = "Jobstream-Position"
	ageHeader      = "Jobstream-Age"
)

// passed is what another node's door has found out about a request. The doors write it as
// JSON.
type passed struct {
	*access.Principal
	Remote string  // the client's address
	Prefix string  // see prefixOf
	Job    jobs.ID // see api.Caller
}

type passedKey struct{}

// passedOn is what another door says about a request; nil for one from outside.
func passedOn(r *http.Request) *passed {
	p, _ := r.Context().Value(passedKey{}).(*passed)
	return p
}

// Inner answers the requests that other nodes pass on. They say whose these are, so nobody
// else may use it.
func (s *Server) Inner() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p passed
		if err := json.Unmarshal([]byte(r.Header.Get(passedHeader)), &p); err != nil || p.Principal == nil || p.Name == "" {
			http.Error(w, "the request does not say whose it is", http.StatusBadRequest)
			return
		}
		r.Header.Del(passedHeader)
		r = r.WithContext(context.WithValue(r.Context(), passedKey{}, &p))
		r.RemoteAddr = p.Remote
		s.http.Handler.ServeHTTP(w, r)
	})
}

// find has an operation done at its place: it waits until that is here, or passes the
// request on. done says that it has been answered.
func (k *call) find(op *api.Operation) (done bool, err error) {
	in, cluster := k.s.in().backend, k.s.cluster
	switch op.PlaceFor(k.Request().URL.RawQuery, nil) {
	case api.Here:
		if comesBack(k.Request()) {
			k.settle(k.Request().Context())
		}
		k.sayPosition()
	case api.Current:
		err := cluster.Current(k.Request().Context())
		if op.Place == api.Here {
			k.sayPosition()
		}
		return false, err
	default:
		decides := in.Submitter != nil && cluster.Leads()
		if from := passedOn(k.Request()); from == nil {
			if !decides {
				return true, k.passOn(op)
			}
		} else if !decides || k.s.draining.Load() && !reads(k.Request()) {
			k.Response().Header().Set(Undone, "true")
			return false, unavailable("this node does not lead; try again")
		}
	}
	k.backend = in
	return false, nil
}

// comesBack says whether a request goes on with events that another node may have begun to
// tell. That one may know more than this one does yet.
func comesBack(r *http.Request) bool {
	return r.Header.Get("Last-Event-Id") != "" || strings.Contains(r.URL.RawQuery, "last_event_id=")
}

// sayPosition says in the header how much this node knows.
func (k *call) sayPosition() {
	number, age := k.s.cluster.Position()
	h := k.Response().Header()
	h.Set(positionHeader, strconv.FormatUint(number, 10))
	h.Set(ageHeader, strconv.FormatFloat(age.Seconds(), 'f', 3, 64))
}

// passDrain is how long a request that was passed on may take after the door has begun to
// close.
const passDrain = time.Second

// passOn has the leader answer.
func (k *call) passOn(op *api.Operation) error {
	ctx, cancel := context.WithCancel(k.Request().Context())
	defer cancel()
	r := k.Request().WithContext(ctx)
	if !reads(r) && !op.Large {
		body, err := k.read()
		if err != nil {
			return err
		}
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	if err := k.waitElsewhere(); err != nil {
		return err
	}
	if err := k.bind(cancel); err != nil {
		return err
	}
	closing := context.AfterFunc(k.s.open, func() { time.AfterFunc(passDrain, cancel) })
	defer closing()
	var job jobs.ID
	if op.MakesOne() {
		job = jobs.NewID()
	}
	repeatable := op.MakesOne() || reads(r) || !op.Large && r.Header.Get("Idempotency-Key") != ""
	w := k.Response()
	own := w.Header().Clone()
	clear(w.Header()) // the leader sets them, too
	var failed error
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { k.rewrite(p, own.Get(requestIDHeader), job) },
		Transport:     sender{k.s.cluster, repeatable},
		FlushInterval: -1,
		ModifyResponse: func(a *http.Response) error {
			if !reads(r) && a.StatusCode < http.StatusBadRequest {
				k.settle(ctx)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	if failed != nil {
		for name, values := range own {
			w.Header()[name] = values
		}
		if revoked := k.revoked(); revoked != nil {
			return revoked
		}
		if _, known := jobs.AsError(failed); !known {
			return unavailable("the answer of another node was lost, so the request may have been done, or not: %v", failed)
		}
	}
	return failed
}

// settleTime is how long an answer may wait for this node's tracker. Then the client finds
// what it has done at the leader only.
const settleTime = 5 * time.Second

// settle waits until what was done is known here, too.
func (k *call) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	_ = k.s.cluster.Current(ctx) // it is done, whether this node knows or not
}

// waitElsewhere exchanges the place for one among requests that wait. Unlike in wait, the
// body is kept, and counts.
func (k *call) waitElsewhere() error {
	select {
	case k.s.waits <- struct{}{}:
	default:
		return unavailable("%d requests are waiting already; try again later", k.s.bounds.Waits)
	}
	k.leave()
	k.place = k.s.waits
	_ = http.NewResponseController(k.Response().Writer).SetWriteDeadline(time.Time{}) // the leader's door has its bounds
	_ = http.NewResponseController(k.Response().Writer).SetReadDeadline(time.Time{})  // not all writers have one
	return nil
}

// rewrite makes the request that is sent.
func (k *call) rewrite(p *httputil.ProxyRequest, id string, job jobs.ID) {
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.RawQuery = "http", "leader", p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	who, err := json.Marshal(passed{Principal: k.who, Remote: k.Request().RemoteAddr, Prefix: prefixOf(k.Request()), Job: job})
	if err != nil {
		panic(err) // texts and a time always marshal
	}
	p.Out.Header.Del("Authorization")
	p.Out.Header.Set(passedHeader, string(who))
	p.Out.Header.Set(requestIDHeader, id)
}

// As is the transport of requests of a member itself to [Server.Inner] of the node that leads.
func As(who *access.Principal, to Cluster) http.RoundTripper { return member{who, to} }

type member struct {
	who *access.Principal
	to  Cluster
}

func (m member) RoundTrip(r *http.Request) (*http.Response, error) {
	who, err := json.Marshal(passed{Principal: m.who})
	if err != nil {
		return nil, err
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.Host = "http", "localhost"
	out.Header.Set(passedHeader, string(who))
	return m.to.Send(out, reads(r))
}

// sender is [Cluster.Send] as a transport.
type sender struct {
	to         Cluster
	repeatable bool
}

func (s sender) RoundTrip(r *http.Request) (*http.Response, error) { return s.to.Send(r, s.repeatable) }
