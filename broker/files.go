package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// Files are the files of a cluster's jobs, in stream FILES. A file is one message per part,
// and a last one with its size; without that there is no file. The subject of a part is
// files.<folder>.<owner>.<sum>.<number>, the last one's ends in "end". A subject has one
// message. So a part that is published twice is there once: the sum says what it has.
type Files struct{ server *Server }

var _ jobs.Copies = (*Files)(nil)

const (
	filesSubjects = "files."
	filePart      = 256 << 10 // bytes
	fileEnd       = "end"
	// fileTime is how long a request is made again while the cluster elects.
	fileTime = 30 * time.Second
)

func filePrefix(f jobs.FileKey) string {
	return filesSubjects + f.Folder + "." + f.Owner.String() + "." + f.Sum + "."
}

// again makes a request until it is answered, for some time.
func (x *Files) again(request func(ctx context.Context) error) error {
	for begun := time.Now(); ; {
		ctx, cancel := context.WithTimeout(context.Background(), joinCall)
		err := request(ctx)
		cancel()
		var answer *jetstream.APIError
		switch {
		case err == nil, errors.As(err, &answer) && answer.Code < 500, errors.Is(err, jetstream.ErrMsgNotFound), x.server.nc.IsClosed():
			return err
		case time.Since(begun) > fileTime:
			return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("the cluster stores and finds no files at the moment; try again (%v)", err)}
		}
		time.Sleep(joinPause)
	}
}

func (x *Files) publish(subject string, body []byte) error {
	return x.again(func(ctx context.Context) error {
		_, err := x.server.js.Publish(ctx, subject, body, jetstream.WithExpectStream(FilesStream))
		return err
	})
}

// last is the body of the message with this subject, from the leader of the stream. The
// error is fs.ErrNotExist if there is none.
func (x *Files) last(subject string) (body []byte, err error) {
	err = x.again(func(ctx context.Context) error {
		s, err := x.server.js.Stream(ctx, FilesStream)
		if err != nil {
			return err
		}
		m, err := s.GetLastMsgForSubject(ctx, subject)
		if err == nil {
			body = m.Data
		}
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = fs.ErrNotExist
	}
	return body, err
}

func (x *Files) size(f jobs.FileKey) (int64, error) {
	body, err := x.last(filePrefix(f) + fileEnd)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(body), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("stream %s has a file with the size %s", FilesStream, jobs.Quote(string(body)))
	}
	return n, nil
}

// Put stores a file; see [jobs.Copies]. What an error leaves of it goes with the owner's
// files, or when the cluster is tidied.
func (x *Files) Put(f jobs.FileKey, content io.Reader) error {
	if _, err := x.size(f); !errors.Is(err, fs.ErrNotExist) {
		return err // it is there
	}
	size, part := int64(0), make([]byte, filePart)
	for number := 0; ; number++ {
		n, err := io.ReadFull(content, part)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if n > 0 {
			if err := x.publish(filePrefix(f)+strconv.Itoa(number), part[:n]); err != nil {
				return err
			}
		}
		if size += int64(n); last {
			return x.publish(filePrefix(f)+fileEnd, strconv.AppendInt(nil, size, 10))
		}
	}
}

// Get writes a file to w; see [jobs.Copies].
func (x *Files) Get(f jobs.FileKey, w io.Writer) error {
	size, err := x.size(f)
	if err != nil {
		return err
	}
	for number, had := 0, int64(0); had < size; number++ {
		part, err := x.last(filePrefix(f) + strconv.Itoa(number))
		if err != nil {
			return err // it has just been removed
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
		had += int64(len(part))
	}
	return nil
}

// subjects are those in the stream that match a filter.
func (x *Files) subjects(filter string) (found []string, bytes int64, err error) {
	err = x.again(func(ctx context.Context) error {
		s, err := x.server.js.Stream(ctx, FilesStream)
		if err != nil {
			return err
		}
		var o []jetstream.StreamInfoOpt
		if filter != "" {
			o = append(o, jetstream.WithSubjectFilter(filter))
		}
		info, err := s.Info(ctx, o...)
		if err != nil {
			return err
		}
		found, bytes = nil, int64(info.State.Bytes)
		for subject := range info.State.Subjects {
			found = append(found, subject)
		}
		return nil
	})
	return found, bytes, err
}

// Sizes are the sizes of an owner's files; see [jobs.Copies].
func (x *Files) Sizes(folder string, owner jobs.ID) (map[string]int64, error) {
	found, _, err := x.subjects(filesSubjects + folder + "." + owner.String() + ".*." + fileEnd)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(found))
	for _, subject := range found {
		f, _ := fileOf(subject)
		size, err := x.size(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been removed
		}
		if err != nil {
			return nil, err
		}
		sizes[f.Sum] = size
	}
	return sizes, nil
}

// fileOf is the file that a subject belongs to.
func fileOf(subject string) (f jobs.FileKey, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 5 {
		return f, false
	}
	id, err := jobs.ParseID(parts[2])
	return jobs.FileKey{Folder: parts[1], Owner: id, Sum: parts[3]}, err == nil
}

// Remove deletes a file; see [jobs.Copies]. Its end goes first, so that no half of it is
// ever found.
func (x *Files) Remove(f jobs.FileKey) error {
	for _, last := range []string{fileEnd, "*"} {
		err := x.again(func(ctx context.Context) error {
			s, err := x.server.js.Stream(ctx, FilesStream)
			if err != nil {
				return err
			}
			return s.Purge(ctx, jetstream.WithPurgeSubject(filePrefix(f)+last))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Bytes is how much the stream has; see [jobs.Copies].
func (x *Files) Bytes() (int64, error) {
	_, n, err := x.subjects("")
	return n, err
}

// FilePart is what there is of a file.
type FilePart struct {
	Parts int  // messages
	Whole bool // it has its end
}

// All is what the stream has.
func (x *Files) All() (map[jobs.FileKey]FilePart, error) {
	found, _, err := x.subjects(filesSubjects + ">")
	all := make(map[jobs.FileKey]FilePart)
	for _, subject := range found {
		f, ok := fileOf(subject)
		if !ok {
			continue
		}
		p := all[f]
		p.Parts++
		p.Whole = p.Whole || strings.HasSuffix(subject, "."+fileEnd)
		all[f] = p
	}
	return all, err
}

// StoppedFiles are the files in the folder of a member that does not run.
type StoppedFiles struct {
	*Files
	dir string
}

// OpenStoppedFiles reads the copy of the stream that a member has in its broker's folder,
// which it leaves as it is. The error is fs.ErrNotExist if there is none. A server that is
// alone finds the messages in a folder of links to them. Nobody else may use the folder
// until Close.
func OpenStoppedFiles(ctx context.Context, dir string, log *slog.Logger) (*StoppedFiles, error) {
	server := &Server{o: Options{Dir: filepath.Join(dir, "stopped"), Node: "stopped"}, log: log}
	x := &StoppedFiles{&Files{server}, server.o.Dir}
	err := os.RemoveAll(x.dir) // an interrupted one has left it
	if err == nil {
		err = folder(x.dir).linkFiles(folder(dir))
	}
	if err == nil {
		err = server.start(ctx)
	}
	if err == nil {
		_, err = server.js.CreateStream(ctx, server.o.filesConfig())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the files of jobs in %s: %w", dir, errors.Join(err, x.Close()))
	}
	return x, nil
}

// linkFiles has a folder with the messages of another one's stream of files.
func (f folder) linkFiles(from folder) error {
	const messages = "msgs"
	blocks, err := filepath.Glob(filepath.Join(from.stream(FilesStream), messages, "*.blk"))
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return fs.ErrNotExist
	}
	to := filepath.Join(f.stream(FilesStream), messages)
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	for _, path := range blocks {
		if err := os.Link(path, filepath.Join(to, filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the reading.
func (x *StoppedFiles) Close() error {
	x.server.halt()
	return os.RemoveAll(x.dir)
}
