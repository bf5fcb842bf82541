package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/status/boltfile"
)

// Schedules are kept by name, beside the jobs that they make. So the transaction that
// stores such a job also moves its schedule on.

// Schedules lists all schedules in the order of their names.
func (q *Queries) Schedules(_ context.Context) (all []*schedule.Entry, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketSchedules).ForEach(func(_, v []byte) error {
			e, err := schedule.Decode(v)
			all = append(all, e)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Schedule finds a schedule; nil without an error if there is none.
func (q *Queries) Schedule(_ context.Context, name string) (e *schedule.Entry, err error) {
	err = q.db.View(func(tx *boltfile.Tx) (err error) {
		e, err = readSchedule(tx, name)
		return err
	})
	return e, err
}

// schedules are all schedules, as a transaction sees and changes them.
type schedules struct {
	tx     *boltfile.Tx
	log    *slog.Logger
	totals *scheduleTotals // nil until somebody asks
}

// do does a command about a schedule.
func (s *schedules) do(c schedule.Command) (jobs.Effect, error) {
	old, err := readSchedule(s.tx, c.Schedule())
	if err != nil {
		return jobs.Effect{}, err
	}
	e, err := c.Apply(old)
	switch {
	case err != nil || e == old:
	case e == nil:
		s.totals = nil // counted anew when that is needed
		if err = s.forgetRuns(old.Name); err != nil {
			break
		}
		err = s.tx.Bucket(bucketSchedules).Delete([]byte(old.Name))
	default:
		if err = s.room(old, e); err == nil {
			err = writeSchedule(s.tx, e)
		}
		if d, ok := c.(schedule.Dealt); ok && err == nil && (d.Skipped || d.Job != jobs.ID{}) {
			err = s.keepRun(d.Name, schedule.Run{At: d.Time, Job: d.Job})
		}
	}
	if err != nil {
		return jobs.Effect{}, err
	}
	return jobs.Effect{Value: schedule.Change{Old: old, New: e}}, nil
}

// scheduleTotals count all schedules, as the transaction has left them so far.
type scheduleTotals struct{ number, payloads int }

// room refuses e if there is no room for it beside the others, and counts it otherwise.
// If old is not nil, e replaces it.
func (s *schedules) room(old, e *schedule.Entry) error {
	if s.totals == nil {
		s.totals = &scheduleTotals{}
		err := s.tx.Bucket(bucketSchedules).ForEach(func(_, v []byte) error {
			s.totals.number++
			s.totals.payloads += len(v)
			return nil
		})
		if err != nil {
			return err
		}
	}
	number, more := 1, len(e.Payload)
	if old != nil {
		number, more = 0, len(e.Payload)-len(old.Payload)
	}
	switch {
	case s.totals.number+number > schedule.MaxSchedules:
		return &jobs.Error{Kind: jobs.Conflict, Detail: fmt.Sprintf("there are %d schedules, as many as there may be; delete one first", schedule.MaxSchedules)}
	case more > 0 && s.totals.payloads+more > schedule.MaxStored:
		return &jobs.Error{Kind: jobs.Conflict, Detail: fmt.Sprintf("all schedules together have at most %d MiB; make some payloads smaller, or delete some", schedule.MaxStored>>20)}
	}
	s.totals.number += number
	s.totals.payloads += more
	return nil
}

// ran moves a schedule on with the new job that it has made.
func (s *schedules) ran(m *jobs.Message) error {
	t := m.Terms
	e, err := readSchedule(s.tx, t.Schedule)
	if err != nil {
		s.log.Error("a schedule's last run cannot be noted", "error", err)
		return nil //nolint:nilerr // the job counts more
	}
	if e == nil {
		return nil
	}
	if err := writeSchedule(s.tx, e.Ran(m.ID, t.ScheduledFor, m.At)); err != nil {
		return err
	}
	at := t.ScheduledFor
	if at == 0 { // by hand
		at = m.At
	}
	return s.keepRun(t.Schedule, schedule.Run{At: at, Job: m.ID})
}

// keepRun keeps what became of a schedule's moment. The oldest go.
func (s *schedules) keepRun(name string, r schedule.Run) error {
	var job []byte
	if !r.Skipped() {
		job = r.Job[:]
	}
	runs := s.tx.Bucket(bucketScheduleRuns)
	if err := runs.Put(append(runsOf(name), key8(uint64(r.At))...), job); err != nil {
		return err
	}
	return trimRuns(runs, name, schedule.MaxRuns)
}

// trimRuns leaves the latest moments of a schedule.
func trimRuns(runs boltfile.Bucket, name string, most int) error {
	prefix, n := runsOf(name), 0
	c := runs.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	for ; n > most; n-- {
		if k, _ := c.Seek(prefix); k != nil {
			if err := runs.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *schedules) forgetRuns(name string) error {
	return trimRuns(s.tx.Bucket(bucketScheduleRuns), name, 0)
}

// runsOf begins the keys of a schedule's runs. A name has no NUL.
func runsOf(name string) []byte { return append([]byte(name), 0) }

// ScheduleRuns lists what became of the latest moments of a schedule, the latest first.
func (q *Queries) ScheduleRuns(_ context.Context, name string) (all []schedule.Run, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		prefix := runsOf(name)
		c := tx.Bucket(bucketScheduleRuns).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			r := schedule.Run{At: jobs.Time(binary.BigEndian.Uint64(k[len(prefix):]))}
			copy(r.Job[:], v)
			all = append(all, r)
		}
		return nil
	})
	slices.Reverse(all)
	return all, err
}

func readSchedule(tx *boltfile.Tx, name string) (*schedule.Entry, error) {
	v := tx.Bucket(bucketSchedules).Get([]byte(name))
	if v == nil {
		return nil, nil
	}
	e, err := schedule.Decode(slices.Clone(v))
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", name, err)
	}
	return e, nil
}

func writeSchedule(tx *boltfile.Tx, e *schedule.Entry) error {
	v, err := e.Encode()
	if err != nil {
		return err
	}
	return tx.Bucket(bucketSchedules).Put([]byte(e.Name), v)
}
