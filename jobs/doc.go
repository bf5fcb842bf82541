// Package jobs is the domain of jobstream: what a job is, how its state changes, and
// what runs it. It knows neither NATS nor bbolt nor HTTP. It imports nothing of
// jobstream but the reader of JSON, [jobstream/jobs/strict]. The packages broker,
// status and httpapi adapt those technologies to the small interfaces declared here.
//
// A program that makes or does jobs starts with [Define]: one [Definition] is a job type
// for both ends. A [Client] makes its jobs, a [Registry] has the functions that do them,
// and [Run] tries one without a server.
//
// Where to start in the domain itself:
//
//   - [Job] is the record of one job, and [Event] is something that happened to it.
//     [Apply] folds the one into the other: it is the state machine of a running job.
//   - [Command] is any other change: a request, or a moment that has come.
//   - [Submission] is a client's request for a job, and [Message] its form in the
//     queue. [jobstream/jobs/intake.Submitter] brings the one into the other;
//     [jobstream/jobs/api.ParseSubmission] reads it.
//   - [Registry] has the job types with their settings and handlers. A [Handler] does
//     the work of one attempt, its [Task].
//   - [jobstream/jobs/pool.Pool] runs and settles the deliveries of a [Queue].
//   - [Error] is a mistake of the caller, or something that the server cannot do at
//     present.
package jobs
