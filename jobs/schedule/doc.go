// Package schedule makes jobs at set times: by a cron expression in a time zone,
// or at a fixed interval.
//
// Start with [Spec], what a user wants, which [ParseSpec] reads; [Plan] says
// when that is; [Entry] is a Spec with its State, as the tracker keeps it;
// [Decide] is the rule of what has to happen at a moment, without side effects;
// [Runner] owns the timer and does it; [Book] is what users do with schedules.
//
// That no time is fired twice rests on two things. A fired job's id is made of
// the schedule's name and the time ([FireID]), so that the same fire published
// again is a duplicate; and the transaction that stores the fired job moves
// State.Done on, so that the time is not looked at again.
package schedule
