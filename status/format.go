package status

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// A version of jobstream reads the files of all earlier ones, and refuses those of later
// ones: it would drop what it does not know when it writes a record. The format has two
// numbers. The first is raised by hand when the meaning of something changes. The second
// follows from the tables of attributes and buckets, which only grow.

// formatVersion is the first number. Until 1 the second was not stored.
const formatVersion = 2

// layout is the second number.
func layout() uint64 {
	return uint64(len(allBuckets) + len(jobs.JobFields) + len(jobs.TermsFields) + len(jobs.MessageFields) + len(jobs.ArtifactFields) +
		len(jobs.InputFields) + len(jobs.ErrorFields) + len(jobs.HistoryFields) + len(jobs.EventFields))
}

// checkFormat returns an error if a later version has written the file. version is that
// of this program; "" = unknown.
func checkFormat(tx *boltfile.Tx, version string) error {
	meta := tx.Bucket(bucketMeta)
	if meta.Missing() {
		return nil
	}
	major, minor := uint64(1), uint64(0)
	if v := meta.Get(keyFormat); len(v) == 1 {
		major = uint64(v[0])
	} else if v != nil {
		return fmt.Errorf("its format %x makes no sense", v)
	}
	if v := meta.Get(keyLayout); len(v) == 8 {
		minor = binary.BigEndian.Uint64(v)
	}
	if major < formatVersion || major == formatVersion && minor <= layout() {
		return nil
	}
	writer := cmp.Or(string(meta.Get(keyWriter)), "a later version")
	return fmt.Errorf("it was written by jobstream %s (format %d.%d); this is jobstream %s, which reads up to format %d.%d: use %s or newer",
		writer, major, minor, cmp.Or(version, "of an unknown version"), formatVersion, layout(), writer)
}

// writeFormat stores the format of this version.
func writeFormat(meta boltfile.Bucket, version string) error {
	return errors.Join(meta.Put(keyFormat, []byte{formatVersion}), meta.Put(keyLayout, key8(layout())), meta.Put(keyWriter, []byte(version)))
}
