package archive

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Format is the version of the format that this package writes. It reads no newer one.
const Format = 1

// Names of entries.
const (
	InfoName    = "backup.json"
	TrackerName = "status.db"
	ListName    = "SHA256SUMS"
)

// Folders are the folders of a data folder that an archive may have. Broker is there only
// if streams have what the tracker lacks.
var Folders = []string{"artifacts", "logs", "outbox", "broker"}

// Files are the files of a data folder that an archive may have, beside the tracker. What
// is not named here or in [Folders] is not copied: not the operator's token, not the
// working folders of jobs, and nothing that somebody else keeps there.
var Files = []string{"figures.log", "set-aside.jsonl", "set-aside.jsonl.old"}

// Info says what an archive is.
type Info struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the program that has made it
	Node    string    `json:"node,omitempty"`
	At      time.Time `json:"at"` // everything that was acknowledged until then is in it
	// Jobs and Status are the sequences in the streams up to which the tracker has folded.
	Jobs   uint64 `json:"jobs_position"`
	Status uint64 `json:"status_position"`
	// Streams says that the streams are in it: they have what the tracker lacks.
	Streams bool `json:"streams"`
	// Bytes is about how much follows.
	Bytes int64 `json:"bytes"`
}

// Bounds of what is read.
const (
	maxInfo = 64 << 10 // bytes of backup.json
	maxName = 512      // bytes of a name
	maxDeep = 12       // folders in a name
)

// Valid returns an error for a name that is none of a data folder, or could lead out of
// it.
func Valid(name string) error {
	switch {
	case len(name) > maxName, strings.Count(name, "/") > maxDeep:
		return fmt.Errorf("is too long")
	case !fs.ValidPath(name), strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f || r == '\uFFFD' }):
		return fmt.Errorf("is no plain path")
	}
	top, below, inside := strings.Cut(name, "/")
	for _, folder := range Folders {
		if inside && top == folder && below != "" {
			return nil
		}
	}
	if name == TrackerName || slices.Contains(Files, name) {
		return nil
	}
	return fmt.Errorf("is none of a data folder")
}
