package figures

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"jobstream/jobs/fsync"
)

// The file has the rings, and then a record for each second since. It is not synced: a
// crash of the process costs nothing of it, a power cut its last seconds. When the seconds
// are more than the rings, all is written anew, into another file that takes its place.
//
// Each record has its length and a checksum. Reading ends at the first damaged one, so a
// torn end or a bad disk costs figures and nothing else.
const fileMagic = "jobstream figures 1\n"

const (
	recordSlots  = 'g' // the periods that a ring has
	recordRows   = 'r' // a type in a ring
	recordOpen   = 'o' // the period under way of a ring
	recordWindow = 'w' // a second that is in the rings already
	recordSecond = 's' // one that is not
)

const (
	maxFile     = 256 << 20 // bytes of a file that is read
	leastGrowth = 1 << 20   // bytes of seconds before all is written anew
)

var checksums = crc32.MakeTable(crc32.Castagnoli)

// store is the file of a past, see above.
type store struct {
	path  string
	file  *os.File  // nil: it has to be written anew
	tried time.Time // when it was written anew, or tried to be
	grown int       // bytes of the seconds
	whole int       // bytes of the rest
}

// load reads a file into the past, as far as it is whole. The error is for the log.
func (p *past) load(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%s has %d bytes, which is too many", path, info.Size())
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < len(fileMagic) || string(b[:len(fileMagic)]) != fileMagic {
		return fmt.Errorf("%s is no file of figures, or of another version", path)
	}
	all := len(b)
	b = b[len(fileMagic):]
	for len(b) > 0 {
		payload, rest, ok := cutRecord(b)
		if ok {
			ok = p.restore(payload) == nil
		}
		if !ok {
			return fmt.Errorf("%s is damaged from byte %d on; what stands before that is read", path, all-len(b))
		}
		b = rest
	}
	return nil
}

// cutRecord cuts the first record off.
func cutRecord(b []byte) (payload, rest []byte, ok bool) {
	if len(b) < 8 {
		return nil, nil, false
	}
	size, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	b = b[8:]
	if size == 0 || uint64(size) > uint64(len(b)) || crc32.Checksum(b[:size], checksums) != sum {
		return nil, nil, false
	}
	return b[:size], b[size:], true
}

// appendRecord appends a record with what fill appends.
func appendRecord(b []byte, kind byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(append(b, make([]byte, 8)...), kind))
	payload := b[start+8:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, checksums))
	return b
}

// restore takes up one record.
func (p *past) restore(payload []byte) error {
	r := &reader{b: payload[1:]}
	switch payload[0] {
	case recordSlots:
		g := p.ring(r)
		for n := r.uint(); n > 0 && r.err == nil; n-- {
			if slot := r.int(); slot > 0 {
				g.slots[g.place(slot)] = slot
			}
		}
	case recordRows:
		g, name := p.ring(r), r.text()
		for n := r.uint(); n > 0 && r.err == nil; n-- {
			var one row
			slot := r.int()
			one.read(r)
			if r.err == nil && g.has(slot) {
				last := max(g.used[name], slot)
				g.set(name, slot, one)
				g.used[name] = last
			}
		}
	case recordOpen:
		g, slot := p.ring(r), r.int()
		all, err := readMoments(r)
		if err == nil {
			g.slot, g.open = slot, all
		}
	case recordWindow, recordSecond:
		at, stored := r.int(), r.b
		all, err := readMoments(r)
		switch {
		case err != nil:
		case payload[0] == recordSecond:
			p.push(at, all)
		default:
			p.window(second{at, stored})
		}
	default:
		return errDamaged
	}
	return r.err
}

// ring reads which ring a record is about.
func (p *past) ring(r *reader) *ring {
	i := r.uint()
	if r.check(i < uint64(len(p.rings))); r.err != nil {
		return newRing(1, 1) // for nobody
	}
	return p.rings[i]
}

// appendMoments appends types in a period.
func appendMoments(b []byte, all map[string]*moment) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for name, m := range all {
		b = appendText(b, name)
		b = m.append(b)
	}
	return b
}

func readMoments(r *reader) (map[string]*moment, error) {
	all := make(map[string]*moment)
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		name, m := r.text(), &moment{}
		if m.read(r); r.err == nil {
			all[name] = m
		}
	}
	return all, r.err
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendAll appends the whole past.
func (p *past) appendAll(b []byte) []byte {
	b = append(b, fileMagic...)
	for i, g := range p.rings {
		about := func(b []byte) []byte { return binary.AppendUvarint(b, uint64(i)) }
		b = appendRecord(b, recordSlots, func(b []byte) []byte {
			b = binary.AppendUvarint(about(b), uint64(len(g.slots)))
			for _, slot := range g.slots {
				b = binary.AppendVarint(b, slot)
			}
			return b
		})
		for name, rows := range g.rows {
			b = appendRecord(b, recordRows, func(b []byte) []byte { return g.appendRows(appendText(about(b), name), rows) })
		}
		if g.open != nil {
			b = appendRecord(b, recordOpen, func(b []byte) []byte { return appendMoments(binary.AppendVarint(about(b), g.slot), g.open) })
		}
	}
	for _, s := range p.seconds {
		b = appendRecord(b, recordWindow, s.append)
	}
	return b
}

// appendRows appends the rows that have something.
func (g *ring) appendRows(b []byte, rows []row) []byte {
	n := uint64(0)
	for i := range rows {
		if rows[i] != blank {
			n++
		}
	}
	b = binary.AppendUvarint(b, n)
	for i := range rows {
		if rows[i] != blank {
			b = rows[i].append(binary.AppendVarint(b, g.slots[i]))
		}
	}
	return b
}

func (s second) append(b []byte) []byte { return append(binary.AppendVarint(b, s.at), s.stored...) }

// tryAgain is the time between two tries to write everything anew.
const tryAgain = 10 * time.Second

// stale says whether everything is to be written anew now, and not only the last second.
func (s *store) stale() bool {
	return s.path != "" && (s.file == nil || s.grown > max(leastGrowth, s.whole)) && time.Since(s.tried) >= tryAgain
}

// write stores seconds, or all of a past if that is not nil.
func (s *store) write(last []second, all []byte) error {
	switch {
	case all != nil:
		return s.rewrite(all)
	case s.file == nil:
		return nil
	}
	var b []byte
	for _, one := range last {
		b = appendRecord(b, recordSecond, one.append)
	}
	n, err := s.file.Write(b)
	if s.grown += n; err != nil {
		s.close() // its end is torn; nothing may stand behind that
	}
	return err
}

// rewrite writes all into a new file, which replaces the old one.
func (s *store) rewrite(all []byte) error {
	s.close()
	s.tried = time.Now()
	next := s.path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(all)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(next, s.path)
	}
	if err == nil {
		err = fsync.Dir(filepath.Dir(s.path))
	}
	if err != nil {
		return errors.Join(err, f.Close(), removeIfThere(next))
	}
	s.file, s.whole, s.grown = f, len(all), 0
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *store) close() {
	if s.file != nil {
		_ = s.file.Close() // nothing is lost that was written
		s.file = nil
	}
}
