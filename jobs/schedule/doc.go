// Package schedule makes jobs at set times: by a cron expression in a time zone, or at
// a fixed interval.
//
// Start with [Spec], a user's request, which [ParseSpec] reads. [Plan] has its times.
// [Entry] is a Spec with its State, as the tracker keeps it. [Decide] is the rule of
// the next step, without side effects. [Runner] owns the timer and takes that step.
// [Book] has the operations of users.
//
// No time is fired twice, for two reasons. The id of a job is made from the schedule's
// name and the time ([FireID]), so a repeated fire is a duplicate. The transaction that
// stores the job also moves State.Done past the time.
package schedule
