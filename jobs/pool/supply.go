package pool

import (
	"log/slog"
	"time"

	"jobstream/jobs"
)

// supply is the pool's stock of deliveries: the requests for more, the leases of those
// that are here, and those that were given back and have to come again.
//
// The pool's lock guards its changing fields. Messages to the queue (ack, nak, renew)
// and needless need no lock.
type supply struct {
	queue   jobs.Queue
	tracker jobs.Tracker
	logger  *slog.Logger
	lease   time.Duration        // of a delivery; renewed at a third of it
	open    bool                 // it requests deliveries
	workers int                  // the number of workers to keep busy
	share   int                  // the guaranteed prefetch of each lane
	extra   int                  // the prefetch of all lanes beyond that
	leased  map[uint64]*delivery // by sequence
	leases  line                 // all of them, by the last renewal
	asleep  sleepers
}

func (s *supply) init(o *Options) {
	s.queue, s.tracker, s.logger, s.lease = o.Queue, o.Tracker, o.Logger, o.Lease
	s.workers = o.MaxWorkers
	s.leased = make(map[uint64]*delivery)
	s.asleep.init()
}

// divide shares the prefetch among so many lanes.
func (s *supply) divide(lanes int) { s.share = max(sharedPrefetch/max(lanes, 1), 1) }

// end ends the requests of a lane, which has closed. The next ones begin anew.
func (s *supply) end(l *lane) {
	s.extra -= l.extra
	l.asked, l.most, l.extra = 0, 0, 0
}

// refill requests more when a lane's prefetch runs low.
func (s *supply) refill(l *lane) {
	workers := min(s.workers, l.typ.gates.width())
	if !s.open || workers <= 0 || l.typ.unwanted {
		return
	}
	least := min(max(2*workers, minPrefetch), maxPrefetch, s.share)
	have := l.asked + len(l.buf)
	if have > max(l.most, least)/2 {
		return
	}
	s.extra -= l.extra
	most := l.prefetch(least, have, extraPrefetch-s.extra, time.Now())
	l.extra = most - least
	s.extra += l.extra
	if most <= have { // the pool was made smaller
		return
	}
	if err := s.queue.Pull(l.Lane, most-have); err != nil {
		s.logger.Warn("cannot ask the queue for jobs", "lane", l.String(), "error", err)
		return
	}
	l.asked += most - have
}

// lend begins the lease of a delivery, or renews it. It returns nil if the delivery was
// here already, and stays the same. Its lease ran out because this process was stopped
// or too slow.
func (s *supply) lend(got jobs.Delivery, l *lane) *delivery {
	s.asleep.forget(got.Seq)
	d := s.leased[got.Seq]
	known := d != nil
	if known {
		d.Ref = got.Ref
	} else {
		d = &delivery{Delivery: got, lane: l}
		s.leased[got.Seq] = d
	}
	s.leases.append(&d.inLeases, d, time.Now())
	if known {
		return nil
	}
	return d
}

// stale returns the queue's names of the deliveries whose lease has to be renewed.
func (s *supply) stale(now time.Time) (refs []string) {
	s.leases.stale(now, s.lease/3, func(d *delivery) { refs = append(refs, d.Ref) })
	return refs
}

// forget ends the lease of a delivery.
func (s *supply) forget(d *delivery) {
	delete(s.leased, d.Seq)
	s.leases.remove(&d.inLeases)
}

// The queue knows nothing yet of a delivery without a name: its job was adopted, and its
// message has not come.

func (s *supply) ack(d *delivery) {
	if d.Ref != "" {
		s.answer("acknowledge", s.queue.Ack(d.Delivery))
	}
}

func (s *supply) nak(ref string, delay time.Duration) {
	if ref != "" {
		s.answer("give back", s.queue.Nak(ref, delay))
	}
}

func (s *supply) renew(ref string) { s.answer("renew a lease", s.queue.Extend(ref)) }

// answer logs a request that the queue did not take. That loses nothing, because an
// unrenewed lease ends by itself.
func (s *supply) answer(what string, err error) {
	if err != nil {
		s.logger.Warn("the queue did not take a request; the lease will run out instead", "request", what, "error", err)
	}
}

// needless says whether nobody waits for the message seq. In doubt somebody does, since
// another look costs little.
func (s *supply) needless(seq uint64) bool {
	j, err := s.tracker.Find(seq)
	return err == nil && !needs(j, seq)
}

// needs says whether j waits for the delivery of the message seq.
func needs(j *jobs.Job, seq uint64) bool {
	return j != nil && j.Seq == seq && j.Place == jobs.InQueue && !j.Status.Ended()
}
