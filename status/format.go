package status

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// A version of jobstream reads the files of all earlier ones, and refuses those of later
// ones: it would drop what it does not know when it writes a record. The format has two
// numbers. The first is raised by hand when the meaning of something changes. The second
// follows from the tables of attributes and buckets, which only grow.
//
// A server that is alone gives its file the format of its version. A member of a cluster
// keeps the format that the file has, as an older version must go on where it was replaced. The
// format is raised with the first transaction that may have more, when all members read
// that; see [Replica.Raise]. It stands in each transaction of the log. So whatever is new
// in a version is written only if that format has it, see [formats.writes].

// formatVersion is the first number. Until 1 the second was not stored.
const formatVersion = 2

// layout is the second number.
func layout() uint64 {
	return uint64(len(allBuckets) + len(jobs.JobFields) + len(jobs.TermsFields) + len(jobs.MessageFields) + len(jobs.ArtifactFields) +
		len(jobs.InputFields) + len(jobs.ErrorFields) + len(jobs.HistoryFields) + len(jobs.EventFields))
}

// sharedFormat is that of the first version that could be a member of a cluster. Every
// member reads it.
var sharedFormat = replica.NewFormat(2, 129)

// formatOf is the format that this program reads.
func formatOf(o *Options) replica.Format {
	return cmp.Or(o.Format, replica.NewFormat(formatVersion, uint32(layout())))
}

// readFormat is the format of a file.
func readFormat(meta boltfile.Bucket) (replica.Format, error) {
	major, minor := uint32(1), uint32(0)
	if v := meta.Get(keyFormat); len(v) == 1 {
		major = uint32(v[0])
	} else if v != nil {
		return 0, fmt.Errorf("its format %x makes no sense", v)
	}
	if v := meta.Get(keyLayout); len(v) == 8 {
		minor = uint32(binary.BigEndian.Uint64(v))
	}
	return replica.NewFormat(major, minor), nil
}

// checkFormat returns an error if a later version has written the file, which reads only up
// to a format. version is that of this program; "" = unknown.
func checkFormat(tx *boltfile.Tx, version string, most replica.Format) error {
	meta := tx.Bucket(bucketMeta)
	if meta.Missing() {
		return nil
	}
	is, err := readFormat(meta)
	if err != nil || is <= most {
		return err
	}
	writer := cmp.Or(string(meta.Get(keyWriter)), "a later version")
	return fmt.Errorf("it was written by jobstream %s (format %v); this is jobstream %s, which reads up to format %v: use %s or newer",
		writer, is, cmp.Or(version, "of an unknown version"), most, writer)
}

// writeFormat stores a format, and the version that writes it.
func writeFormat(meta boltfile.Bucket, version string, f replica.Format) error {
	return errors.Join(meta.Put(keyFormat, []byte{byte(f >> 32)}), meta.Put(keyLayout, key8(uint64(uint32(f)))), meta.Put(keyWriter, []byte(version)))
}

// openedFormat is the format of a file when it was opened; made = it is new.
func openedFormat(meta boltfile.Bucket, o *Options, made bool) (replica.Format, error) {
	is, err := readFormat(meta)
	switch {
	case err != nil || !o.Member:
		return formatOf(o), err
	case made:
		return sharedFormat, nil
	}
	return max(is, sharedFormat), nil // it has the form of this version now, and no content of it
}
