package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxNormal is the length of a normalised error, in bytes.
const maxNormal = 200

// Fingerprint identifies the failures of a type with one normalised error, as 16 hex digits.
// Jobs with the same one have failed in the same way, as far as their errors say. It is
// "" unless the job has failed.
func (j *Job) Fingerprint() string {
	if j.Status != Failed {
		return ""
	}
	return FingerprintOf(j.ListedAs(), NormalError(j.Error))
}

// FingerprintOf is the [Job.Fingerprint] for a type and an [NormalError].
func FingerprintOf(typ, kind string) string {
	sum := sha256.Sum256([]byte(clean(typ) + "\x00" + kind))
	return hex.EncodeToString(sum[:8])
}

// clean is s without what is not UTF-8. JSON has U+FFFD in place of such a byte.
func clean(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\ufffd", "") }

// IsFingerprint says whether a text has the form of a [Job.Fingerprint].
func IsFingerprint(text string) bool {
	return len(text) == 16 && strings.Trim(text, "0123456789abcdef") == ""
}

// NormalError makes errors equal that differ in a number or an id only. Words with four
// digits or more become "…". Short numbers stay, as they are often codes.
func NormalError(s string) string {
	if s == "" {
		return "(no message)"
	}
	s = clean(s)
	if len(s) > maxNormal {
		s = s[:maxNormal] + "…"
	}
	var b strings.Builder
	for s != "" {
		end, digits := 0, 0
		for end < len(s) && isWord(s[end]) {
			if s[end] >= '0' && s[end] <= '9' {
				digits++
			}
			end++
		}
		switch {
		case digits >= 4:
			b.WriteString("…")
		case end == 0:
			end = 1
			b.WriteByte(s[0])
		default:
			b.WriteString(s[:end])
		}
		s = s[end:]
	}
	return strings.ToValidUTF8(b.String(), "")
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

// FailureGroup is a group of failed jobs with one [Job.Fingerprint].
type FailureGroup struct {
	Fingerprint string
	Type        string
	Error       string // its [NormalError]
	Count       int    // jobs that are there
	Permanent   int    // how many of them no retry can mend, by their error
	// First and Last are the moments of their ends, of deleted and retried ones too as
	// long as there is one of the group.
	First, Last Time
	Example     *Job // the youngest of them; without a large payload
}

// FailurePage is a request for a part of the list of failures.
type FailurePage struct {
	Types   []string // none stands for all
	Limit   int      // 1 to [MaxLimit]; 0 = [DefaultLimit]
	Cursor  string   // of the page before; "" = from the start
	ByCount bool     // the largest first, instead of the latest; without a cursor
}

// FailureList is a page of failures. It has looked at a bounded number of groups, and may
// have fewer than requested and still a Next.
type FailureList struct {
	Failures []FailureGroup
	Next     string // the cursor of the next page; "" = there is none
	Scanned  int    // groups that it has looked at
	// Cut says that a list by count has not looked at all of them.
	Cut bool
}
