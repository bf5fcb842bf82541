// Package jobs is the domain of jobstream: what a job is, how its state
// changes, and how it is run. It knows neither NATS nor bbolt nor HTTP and
// imports nothing of jobstream's own but the reader of JSON, [jobstream/jobs/strict]; the packages broker, status and httpapi
// adapt those technologies to the small interfaces declared here.
//
// Where to start:
//
//   - [Job] is the record of one job, [Event] something that happened to it, and
//     [Apply] the fold of the one into the other: the only place where a job's
//     status changes.
//   - [Command] is any other change: what people ask for, what time brings about.
//   - [Submission] is what a client asks for, [Message] what stands in the queue
//     for it, [jobstream/jobs/intake.Submitter] the way from the one to the other.
//   - [Registry] holds the job types with their settings and handlers; a
//     [Handler] does the work of one attempt, with a [Task] in its hand.
//   - [jobstream/jobs/pool.Pool] takes deliveries from a [Queue], runs them and settles them.
//   - [Error] is what a caller did wrong, or what the server can't do now.
package jobs
