package jobstest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"jobstream/jobs"
)

// Failure describes an error as "kind pointer pointer…"; it is "" for nil.
func Failure(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *jobs.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is a %T, not a *jobs.Error", err, err)
	}
	words := []string{string(e.Kind)}
	for _, f := range e.Fields {
		words = append(words, f.Pointer)
	}
	return strings.Join(words, " ")
}

// Brief is a job's description in tables of tests.
func Brief(j *jobs.Job) string {
	s := fmt.Sprintf("%s %d/%d", j.Status, j.Attempt, j.Failures)
	if j.Progress != 0 {
		s += fmt.Sprintf(" %d%%", j.Progress)
	}
	if j.Error != "" {
		s += " " + j.Error
	}
	return s
}

// Kinds are those of the history of j.
func Kinds(j *jobs.Job) string {
	var s []string
	for _, h := range j.History {
		s = append(s, h.Kind.String())
	}
	return strings.Join(s, " ")
}
