package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/cmd/node"
	"jobstream/cmd/node/archive"
	"jobstream/jobs/fsync"
	"jobstream/jobs/setting"
	"jobstream/status/boltfile"
)

type backupCommand struct {
	cli.ServerFlags
	Rate string  `placeholder:"SIZE" help:"Read at most so much in a second, so that the server has room for its work; 0 = as fast as possible (default: 32MiB of a server that runs, 0 with --data)."`
	Data *string `placeholder:"DIR" help:"Read the data folder of a server that does not run, instead of asking one that runs."`
	To   string  `arg:"" name:"file" help:"The file to write; - is the standard output."`
}

// usualRate is --rate of a server that runs, in bytes.
const usualRate = 32 << 20

// leastRate is the least --rate in bytes. A server gives up clients that take less.
const leastRate = 64 << 10

// Run writes a backup. It has the given name only if it is whole and verified.
func (c *backupCommand) Run(p *program) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := c.out(p)
	if err != nil {
		return err
	}
	defer out.abort()
	from, err := c.from(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // its end has been read, or there is an error anyway
	bar := terminal.On(p.Stderr)
	defer bar.End()
	shown := bar.Reading("backup", from)
	read := io.Reader(shown)
	if limit > 0 {
		read = newPaced(ctx, read, limit)
	}
	got, err := archive.Read(io.TeeReader(read, out), sized(shown), pass)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; nothing is left of the backup")
	}
	if err != nil {
		return c.explain(err)
	}
	bar.End()
	if err := out.commit(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.said, "%s: %s, %d files, verified; it has everything that was acknowledged before %s\n",
		out.name, terminal.Bytes(got.Bytes), got.Files, got.At.Format(time.RFC3339))
	return err
}

// sized takes the size of an archive from its beginning.
func sized(shown *terminal.Reader) func(*archive.Info) error {
	return func(i *archive.Info) error {
		shown.Expect(i.Bytes)
		return nil
	}
}

// pass is for the files of an archive that is only verified.
func pass(*archive.Entry, io.Reader) error { return nil }

// limit is the value of --rate; 0 = there is none.
func (c *backupCommand) limit() (n int64, err error) {
	s := setting.Size("rate", &n, leastRate, 1<<40)
	switch {
	case c.Rate == "" && c.Data == nil:
		return usualRate, nil
	case c.Rate == "" || c.Rate == "0":
		return 0, nil
	case !s.Set(setting.FromText(c.Rate)):
		return 0, &usageError{Err: fmt.Errorf("--rate: %q is not 0 or %s", c.Rate, s.Allowed)}
	}
	return n, nil
}

// from is the archive that is read: the answer of a running server, or what is made of a
// folder. The end of ctx ends it.
func (c *backupCommand) from(ctx context.Context, p *program) (io.ReadCloser, error) {
	if c.Data == nil {
		return c.Whole(ctx, p, "/backup")
	}
	version, _, _ := versions()
	log := commandLog(p.Stderr)
	out, in := io.Pipe()
	go func() {
		err := node.Backup(ctx, *c.Data, version, in, log)
		_ = in.CloseWithError(err) // always nil
	}()
	return out, nil
}

// explain says what to do about an error.
func (c *backupCommand) explain(err error) error {
	switch {
	case c.Data == nil && errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the server broke the backup off; its log has the reason: %w", err)
	case errors.Is(err, boltfile.ErrLocked):
		return fmt.Errorf("%w Leave --data out to back up the running server", err)
	case c.Data != nil && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no tracker in %s (--data): %w", *c.Data, err)
	}
	return err
}

// output is where a backup goes.
type output struct {
	io.Writer
	name string    // what it is called in the end
	said io.Writer // for what people read
	file *os.File  // under another name, until commit; nil = it is not ours
}

// out begins the output.
func (c *backupCommand) out(p *program) (*output, error) {
	if c.To == "-" {
		if terminal.Is(p.Stdout) {
			return nil, &usageError{Err: errors.New("a backup is no text for a terminal; name a file, or redirect the output")}
		}
		return &output{Writer: p.Stdout, name: "the backup", said: p.Stderr}, nil
	}
	if info, err := os.Stat(c.To); err == nil && !info.Mode().IsRegular() {
		return nil, &usageError{Err: fmt.Errorf("%s is there and no plain file", c.To)}
	}
	f, err := os.CreateTemp(filepath.Dir(c.To), "."+filepath.Base(c.To)+"-*.tmp")
	var failed *fs.PathError
	if errors.As(err, &failed) { // its path is another one
		return nil, fmt.Errorf("%s cannot be written: %w", c.To, failed.Err)
	}
	if err != nil {
		return nil, err
	}
	return &output{Writer: f, name: c.To, said: p.Stdout, file: f}, nil
}

// commit makes the output durable and gives it its name.
func (o *output) commit() error {
	if o.file == nil {
		return nil
	}
	err := errors.Join(o.file.Sync(), o.file.Close())
	if err == nil {
		err = os.Rename(o.file.Name(), o.name)
	}
	if err != nil {
		return err
	}
	o.file = nil
	return fsync.Dir(filepath.Dir(o.name))
}

// abort removes an output that was not committed.
func (o *output) abort() {
	if o.file != nil {
		_ = o.file.Close() // its content is unwanted
		_ = os.Remove(o.file.Name())
	}
}

// paced reads no faster than its limiter says.
type paced struct {
	ctx     context.Context
	from    io.Reader
	limiter *rate.Limiter
}

// newPaced reads so many bytes in a second. On a busy machine it may be late by an eighth
// of a second and still keep the rate.
func newPaced(ctx context.Context, from io.Reader, bytes int64) *paced {
	return &paced{ctx, from, rate.NewLimiter(rate.Limit(bytes), int(max(bytes/8, leastRate)))}
}

func (l *paced) Read(p []byte) (int, error) {
	n, err := l.from.Read(p[:min(len(p), l.limiter.Burst())])
	if e := l.limiter.WaitN(l.ctx, n); e != nil {
		return n, e
	}
	return n, err
}
