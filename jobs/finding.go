package jobs

import "slices"

// Severity says how bad a finding is.
type Severity string

// The severities, the worst last.
const (
	Notice  Severity = "note"    // good to know
	Warning Severity = "warning" // it may become a problem
	Broken  Severity = "error"   // something is wrong now
)

// Finding is one result of an inspection of a server or a data folder.
type Finding struct {
	Check    string   `json:"check"` // stable, like index.due
	Severity Severity `json:"severity"`
	Text     string   `json:"text"` // in one line
	Do       string   `json:"do"`   // what to do about it, in one line
	// Repairs says that jobstream doctor --repair mends it.
	Repairs bool `json:"repairs"`
}

var severities = []Severity{Notice, Warning, Broken}

// Worst is the worst severity of some findings; "" if there are none.
func Worst(all []Finding) (worst Severity) {
	for _, f := range all {
		if slices.Index(severities, f.Severity) > slices.Index(severities, worst) {
			worst = f.Severity
		}
	}
	return worst
}
