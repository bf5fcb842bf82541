package status

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/packed"
	"jobstream/status/boltfile"
)

// inputs are the files that jobs get, as a transaction sees and changes them. An entry has
// the moment since which no job has had the input (8 bytes), and the description of its
// file. A job has its inputs as long as it has a record. Those that no job has are listed
// by age.
type inputs struct {
	tx *boltfile.Tx
	// rebuild: the entries are not complete yet, so that messages and jobs make them.
	rebuild *bool
}

func (in inputs) entries() boltfile.Bucket { return in.tx.Bucket(bucketInputs) }
func (in inputs) owners() boltfile.Bucket  { return in.tx.Bucket(bucketInputJobs) }
func (in inputs) ages() boltfile.Bucket    { return in.tx.Bucket(bucketInputAge) }

// keep stores a new input.
func (in inputs) keep(c jobs.KeepInput) error {
	if in.entries().Get(c.ID[:]) != nil {
		return nil
	}
	return in.idle(c.ID, c.At, &c.File)
}

// idle stores an input that no job has, from now on.
func (in inputs) idle(id jobs.ID, now jobs.Time, file *jobs.Artifact) error {
	if err := in.put(id, now, file); err != nil {
		return err
	}
	return in.ages().Put(agedKey(now, id), nil)
}

func (in inputs) put(id jobs.ID, since jobs.Time, file *jobs.Artifact) error {
	return in.entries().Put(id[:], packed.AppendArray(key8(uint64(since)), jobs.ArtifactFields, file, 1))
}

func agedKey(at jobs.Time, id jobs.ID) []byte { return append(key8(uint64(at)), id[:]...) }

// find reads an entry; nil if there is none.
func (in inputs) find(id jobs.ID) (since jobs.Time, file *jobs.Artifact, err error) {
	v := in.entries().Get(id[:])
	if len(v) < 8 {
		return 0, nil, nil
	}
	file = &jobs.Artifact{}
	r := packed.Reader{B: v[8:]}
	packed.ReadArray(&r, jobs.ArtifactFields, file)
	if r.Err != nil {
		return 0, nil, fmt.Errorf("input %s: %w", id, r.Err)
	}
	return jobs.Time(binary.BigEndian.Uint64(v)), file, nil
}

// missing is the refusal of a submission with an input that is not there; nil if there is
// none. It was when the door looked, so its time has ended since, or somebody forged the
// message. at is the pointer of the submission.
func (in inputs) missing(t *jobs.Terms, at string) *jobs.Error {
	if t == nil || *in.rebuild {
		return nil
	}
	for i := range t.Inputs {
		if id := t.Inputs[i].ID; in.entries().Get(id[:]) == nil {
			return jobs.Invalid(at+"/inputs/"+t.Inputs[i].Name, jobs.NoInput(id))
		}
	}
	return nil
}

// update gives a job its inputs, when it is made or completed.
func (in inputs) update(old, j *jobs.Job) error {
	if len(j.Inputs()) == 0 || old != nil && len(old.Inputs()) > 0 {
		return nil
	}
	for i := range j.Inputs() {
		if err := in.give(&j.Inputs()[i], j); err != nil {
			return err
		}
	}
	return nil
}

func (in inputs) give(given *jobs.Input, j *jobs.Job) error {
	since, file, err := in.find(given.ID)
	if err != nil {
		return err
	}
	if file == nil { // only while a lost tracker is rebuilt
		if err := in.put(given.ID, j.CreatedAt, &given.File); err != nil {
			return err
		}
	} else if err := in.ages().Delete(agedKey(since, given.ID)); err != nil {
		return err
	}
	return in.owners().Put(append(given.ID[:], key8(j.Key)...), nil)
}

// release takes the inputs of a job whose record is deleted.
func (in inputs) release(j *jobs.Job, now jobs.Time) error {
	for _, had := range j.Inputs() {
		if err := in.owners().Delete(append(had.ID[:], key8(j.Key)...)); err != nil {
			return err
		}
		if k, _ := in.owners().Cursor().Seek(had.ID[:]); bytes.HasPrefix(k, had.ID[:]) {
			continue // another job has it
		}
		_, file, err := in.find(had.ID)
		if err != nil {
			return err
		}
		if file == nil {
			continue
		}
		if err := in.idle(had.ID, now, file); err != nil {
			return err
		}
	}
	return nil
}

// drop forgets inputs that no job has had for long. The jobs of an incomplete batch are
// still to come.
func (in inputs) drop(c jobs.DropInputs) (e jobs.Effect, err error) {
	batches, err := readBatches(in.tx)
	if err != nil {
		return e, err
	}
	needed := make(map[jobs.ID]bool)
	for _, b := range batches {
		for _, m := range b.Messages {
			if m.Terms == nil {
				continue
			}
			for i := range m.Terms.Inputs {
				needed[m.Terms.Inputs[i].ID] = true
			}
		}
	}
	var old [][]byte
	var ids []jobs.ID
	cursor := in.ages().Cursor()
	for key, _ := cursor.First(); len(key) == 24 && len(old) < c.Most; key, _ = cursor.Next() {
		if jobs.Time(binary.BigEndian.Uint64(key)) >= c.Before {
			break
		}
		if id := jobs.ID(key[8:]); !needed[id] {
			old, ids = append(old, bytes.Clone(key)), append(ids, id)
		}
	}
	for i, key := range old {
		if err := in.ages().Delete(key); err != nil {
			return e, err
		}
		if err := in.entries().Delete(ids[i][:]); err != nil {
			return e, err
		}
	}
	return jobs.Effect{Removed: len(ids), Value: ids}, nil
}

// Input describes the file of an input; nil if there is none.
func (q *Queries) Input(id jobs.ID) (file *jobs.Artifact, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		_, file, err = inputs{tx: tx}.find(id)
		return err
	})
	return file, err
}

// OldestInput is the earliest moment since which no job has had an input; 0 if all have
// one.
func (q *Queries) OldestInput() (at jobs.Time, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		if k, _ := tx.Bucket(bucketInputAge).Cursor().First(); len(k) == 24 {
			at = jobs.Time(binary.BigEndian.Uint64(k))
		}
		return nil
	})
	return at, err
}
