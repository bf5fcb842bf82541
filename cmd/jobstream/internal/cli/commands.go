package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// Commands are the commands that talk to a running server.
type Commands struct {
	Submit    submitCommand    `cmd:"" group:"Jobs" help:"Submit a job."`
	Jobs      jobsCommand      `cmd:"" group:"Jobs" help:"List jobs."`
	Job       jobCommand       `cmd:"" group:"Jobs" help:"Show a job: its state, what happened to it, its log."`
	Log       logCommand       `cmd:"" group:"Jobs" help:"Print the log of a job."`
	Tail      tailCommand      `cmd:"" group:"Jobs" help:"Follow the changes of jobs, until Ctrl-C."`
	Cancel    cancelCommand    `cmd:"" group:"Jobs" help:"Cancel jobs."`
	Retry     retryCommand     `cmd:"" group:"Jobs" help:"Run failed or cancelled jobs again."`
	Run       runCommand       `cmd:"" group:"Jobs" help:"Start scheduled or retrying jobs now, without waiting for their moment."`
	Delete    deleteCommand    `cmd:"" group:"Jobs" help:"Delete jobs that have ended, with their files."`
	Types     typesCommand     `cmd:"" group:"Work" help:"List the job types, or show one."`
	Pause     pauseCommand     `cmd:"" group:"Work" help:"Pause job types: their jobs wait."`
	Resume    resumeCommand    `cmd:"" group:"Work" help:"Resume job types."`
	Schedules schedulesCommand `cmd:"" group:"Work" help:"List schedules, and run, pause, resume or delete them."`
	Failures  failuresCommand  `cmd:"" group:"Work" help:"List failed jobs in groups, by their errors."`
	Stats     statsCommand     `cmd:"" group:"Work" help:"Show numbers of jobs and workers."`
	LogLevel  logLevelCommand  `cmd:"" group:"Work" help:"Show or change the level of the server's log."`
	Top       topCommand       `cmd:"" group:"Work" help:"Watch the server on the whole terminal."`

	Reload reloadCommand `cmd:"" group:"Work" help:"Have the server take up the jobs section of its configuration, and log.level."`
	Demo   demoCommand   `cmd:"" group:"Work" help:"Submit a mixture of jobs, to have something to look at."`

	Completion completionCommand `cmd:"" help:"Print a script that completes commands, flags, types and ids in a shell."`
	Complete   completeCommand   `cmd:"" name:"__complete" hidden:"" passthrough:""`
}

// remote are the flags of a command that talks to a server and prints its answer.
type remote struct {
	ServerFlags
	OutputFlag
}

// session is a command at work.
type session struct {
	*Client
	*page
	p   *Program
	ctx context.Context // ends at Ctrl-C
	end func()
}

// open begins the work of a command. Call end.
func (r *remote) open(p *Program) (*session, error) {
	client, err := r.Connect(p)
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	return &session{Client: client, page: r.on(p), p: p, ctx: ctx, end: func() {
		stop()
		client.Close()
	}}, nil
}

// interrupted is err, but if Ctrl-C has ended the command, what that means.
func (s *session) interrupted(err error, means string) error {
	if err != nil && s.ctx.Err() != nil {
		return errors.New("interrupted; " + means)
	}
	return err
}

// JobError says that the job for which a command has waited did not complete. The exit
// code is 3.
type JobError struct{ Job, Status, Detail string }

func (e *JobError) Error() string {
	out := "the job is " + e.Status
	if e.Detail != "" {
		out += ": " + clean(e.Detail)
	}
	return out + "\nSee: jobstream job " + e.Job
}
