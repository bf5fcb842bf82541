// Package status is the tracker: the one place where the state of jobs becomes durable.
// It folds the messages of the streams JOBS and STATUS into records in a bbolt file. One
// transaction has everything that has queued up meanwhile, and each commit is published
// to listeners.
//
// Where to start: [Store] is the open tracker, made of parts with one subject each.
// [Projector.Run] is the only writer. fold.go says what a batch does, and in which order
// a transaction is written. commands.go says what a command does, and query.go has the
// lookups. recover.go is for the start after a crash. sealed.go, apply.go and install.go are for
// several trackers that a log keeps equal, see [Replica]. Package record has the encoding
// of jobs, package index finds and counts them, and package boltfile is the file itself.
//
// The file has these buckets, all keys big endian:
//
//	meta      positions, the number of the last commit, counters per type, the mark of a clean stop,
//	          names of nodes that were removed from the cluster
//	jobs      key → record; the key is the sequence of a job's first message in JOBS, or
//	          beyond all of these for a callback (callbacks.go)
//	payloads  key → payload, for the large ones
//	ids       job id → key
//	moved     sequence of a later message of a job → key
//	bits      attribute, chunk → which of the chunk's 4096 keys have the attribute
//	times     chunk → the earliest and latest created_at in it
//	outbox    commit → moment and keys of the jobs whose end it stored
//	ended     commit → moment and keys of the jobs whose end it stored, for those who follow (ended.go)
//	aliases   key, sequence of a later message → nothing: the moved entries of a job
//
// and these, for jobs with keys, moments or inputs, batches, schedules and the outbox (agenda.go,
// tokens.go, unique.go, turns.go, inputs.go, batches.go, commands.go):
//
//	due       part, moment, key → nothing: jobs whose message is to be published then
//	limits    moment, key → nothing: jobs that have to have started or ended by then
//	unique    unique key → id of the unfinished job that has it, and of the batch that has reserved it
//	slots     type, concurrency key → keys of the jobs that have their turn
//	held      type, concurrency key, priority, key → nothing: jobs that wait for a turn
//	tokens    idempotency key → moment, what was asked for, ids of its jobs
//	tokenage  moment, idempotency key → nothing
//	batches   id → the messages of a batch that is not complete
//	types     type → what an operator has set
//	schedules name → the schedule, with the last moment that it fired for
//	inputs    id → since when no job has it, and what its file is
//	inputjobs id, key → nothing: the jobs that have an input
//	inputage  moment, id → nothing: the inputs that no job has, by age
//	scheduleruns name, moment → id of the job that was made for it; nothing if it was skipped
//	failures  fingerprint → its group of failed jobs
//	failureages last moment, fingerprint → nothing
//	disabled  URL → since when it gets no callbacks, and why; the bucket's sequence numbers callbacks
//	audit     number → who did what (audit.go)
//	refusals  number → who was refused what, and how often
//	copies    key, commit → record of an ended job that runs again or was deleted with that commit (outbox.go)
//	copyages  commit, key → nothing: the copies by age
//	ends      moment, key → the same as earlier versions had it
//
// Messages that cannot be folded are set aside in a file beside it, set-aside.jsonl.
package status
