package jobstest

import (
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
)

// patience is how long a test waits for something that must come.
const patience = 20 * time.Second

// Rig is a queue under test.
type Rig struct {
	Queue jobs.Queue
	// Put puts a message into a lane and returns its sequence.
	Put func(lane jobs.Lane) uint64
	// Lease is how long a delivery may stay unsettled; about a second, so that tests can
	// wait for its end.
	Lease time.Duration
	// Sweep sends the acks that the queue has deferred.
	Sweep func()
}

// Inspector is a jobs.Receiver that passes deliveries on through channels.
type Inspector struct {
	Deliveries chan jobs.Delivery
	Ended      chan int
}

// NewInspector makes an Inspector with room for n deliveries.
func NewInspector(n int) *Inspector {
	return &Inspector{Deliveries: make(chan jobs.Delivery, n), Ended: make(chan int, n)}
}

// Deliver implements jobs.Receiver.
func (i *Inspector) Deliver(d jobs.Delivery) { i.Deliveries <- d }

// PullEnded implements jobs.Receiver.
func (i *Inspector) PullEnded(_ jobs.Lane, n int) { i.Ended <- n }

// Next waits for a delivery.
func (i *Inspector) Next(t testing.TB) jobs.Delivery {
	t.Helper()
	select {
	case d := <-i.Deliveries:
		return d
	case <-time.After(patience):
		t.Fatal("no delivery came")
		return jobs.Delivery{}
	}
}

// None makes sure that no delivery comes for a while.
func (i *Inspector) None(t testing.TB, within time.Duration) {
	t.Helper()
	select {
	case d := <-i.Deliveries:
		t.Fatalf("delivery %d of %s came; none was expected", d.Seq, d.Lane)
	case <-time.After(within):
	}
}

// TestQueue checks the contract of jobs.Queue. open makes a fresh queue with these
// lanes, which delivers to r. Each case runs inside of around: [synctest.Test], or what
// makes such a bubble for the queue.
func TestQueue(t *testing.T, around func(*testing.T, func(*testing.T)), open func(t *testing.T, lanes []jobs.Lane, r jobs.Receiver) Rig) {
	first := jobs.Lane{Type: "email", Priority: 1}
	third := jobs.Lane{Type: "email", Priority: 3}
	lanes := []jobs.Lane{first, third}
	tests := map[string]func(t *testing.T, q Rig, in *Inspector){
		"in order, as many as pulled": func(t *testing.T, q Rig, in *Inspector) {
			var want, got []uint64
			for range 7 {
				want = append(want, q.Put(third))
			}
			pull(t, q, third, 5)
			for range 5 {
				d := in.Next(t)
				if d.Lane != third {
					t.Fatalf("lane %v", d.Lane)
				}
				got = append(got, d.Seq)
				ack(t, q, d)
			}
			in.None(t, 50*time.Millisecond)
			if !slices.Equal(got, want[:5]) {
				t.Fatalf("got %v, want %v", got, want[:5])
			}
		},
		"a pull waits for what comes later": func(t *testing.T, q Rig, in *Inspector) {
			pull(t, q, first, 1)
			pull(t, q, first, 1)
			a, b := q.Put(first), q.Put(first)
			if d := in.Next(t); d.Seq != a {
				t.Fatalf("got %d, want %d", d.Seq, a)
			}
			if d := in.Next(t); d.Seq != b {
				t.Fatalf("got %d, want %d", d.Seq, b)
			}
		},
		"lanes are apart": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, first, 1)
			in.None(t, 50*time.Millisecond)
			seq := q.Put(first)
			if d := in.Next(t); d.Seq != seq || d.Lane != first {
				t.Fatalf("got %v, want %d of %s", d, seq, first)
			}
		},
		"ack ends it": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 2)
			ack(t, q, in.Next(t))
			in.None(t, 2*q.Lease)
		},
		"a second ack and a late nak are for nothing": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 1)
			d := in.Next(t)
			ack(t, q, d)
			q.Sweep()
			ack(t, q, d)
			if err := q.Queue.Nak(d.Ref, 0); err != nil {
				t.Fatal(err)
			}
			pull(t, q, third, 1)
			in.None(t, 50*time.Millisecond)
			seq := q.Put(third)
			if d := in.Next(t); d.Seq != seq {
				t.Fatalf("got %d, want %d", d.Seq, seq)
			}
		},
		"an ack after the lease's end counts": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 1)
			d := in.Next(t)
			in.None(t, 2*q.Lease)
			ack(t, q, d)
			q.Sweep()
			in.None(t, q.Lease/4) // a server processes acks and requests in its own time
			pull(t, q, third, 1)
			in.None(t, q.Lease/4)
		},
		"the ack of one delivery counts for the other": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 2)
			d := in.Next(t)
			in.Next(t) // its lease has ended
			ack(t, q, d)
			pull(t, q, third, 1)
			in.None(t, 2*q.Lease)
		},
		"an ack ends what was given back": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 2)
			d := in.Next(t)
			if err := q.Queue.Nak(d.Ref, q.Lease); err != nil {
				t.Fatal(err)
			}
			ack(t, q, d)
			in.None(t, 2*q.Lease)
		},
		"nak brings it back": func(t *testing.T, q Rig, in *Inspector) {
			a, b := q.Put(third), q.Put(third)
			pull(t, q, third, 1)
			if err := q.Queue.Nak(in.Next(t).Ref, 0); err != nil {
				t.Fatal(err)
			}
			pull(t, q, third, 2)
			got := []uint64{in.Next(t).Seq, in.Next(t).Seq}
			slices.Sort(got)
			if !slices.Equal(got, []uint64{a, b}) {
				t.Fatalf("got %v, want %d and %d", got, a, b)
			}
		},
		"nak with a delay": func(t *testing.T, q Rig, in *Inspector) {
			const delay = 300 * time.Millisecond
			seq := q.Put(third)
			pull(t, q, third, 2)
			d := in.Next(t)
			start := time.Now()
			if err := q.Queue.Nak(d.Ref, delay); err != nil {
				t.Fatal(err)
			}
			if d = in.Next(t); d.Seq != seq {
				t.Fatalf("got %d, want %d", d.Seq, seq)
			}
			if took := time.Since(start); took < delay-10*time.Millisecond {
				t.Fatalf("it came back after %v; asked for was %v", took, delay)
			}
		},
		"the lease's end brings it back": func(t *testing.T, q Rig, in *Inspector) {
			seq := q.Put(third)
			pull(t, q, third, 2)
			in.Next(t)
			if d := in.Next(t); d.Seq != seq {
				t.Fatalf("got %d, want %d", d.Seq, seq)
			}
		},
		"extend keeps it": func(t *testing.T, q Rig, in *Inspector) {
			q.Put(third)
			pull(t, q, third, 2)
			d := in.Next(t)
			for range 12 {
				if err := q.Queue.Extend(d.Ref); err != nil {
					t.Fatal(err)
				}
				in.None(t, q.Lease/5)
			}
			ack(t, q, d)
			in.None(t, 2*q.Lease)
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			around(t, func(t *testing.T) {
				in := NewInspector(100)
				test(t, open(t, lanes, in), in)
			})
		})
	}
}

func pull(t *testing.T, q Rig, lane jobs.Lane, n int) {
	t.Helper()
	if err := q.Queue.Pull(lane, n); err != nil {
		t.Fatal(err)
	}
}

func ack(t *testing.T, q Rig, d jobs.Delivery) {
	t.Helper()
	if err := q.Queue.Ack(d); err != nil {
		t.Fatal(err)
	}
}
