package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
	"jobstream/jobs/fsync"
)

// A crash or a power cut can damage the server's folder. This file makes a working one of
// it. Nothing here decides about jobs: the caller of Open compares the streams with its own
// records afterwards.

const (
	metaFile = "meta.inf"
	metaSum  = "meta.sum"
)

// openStreams makes the streams, or adopts them with today's settings. It first repairs
// those whose folder is there but which did not load.
func (s *Server) openStreams(ctx context.Context) error {
	broken, err := s.brokenStreams(ctx)
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		if err := s.repair(ctx, broken); err != nil {
			return err
		}
	}
	for _, cfg := range s.o.streams() {
		if err := s.openStream(ctx, cfg); err != nil {
			return err
		}
	}
	return s.folder().syncMeta()
}

func (s *Server) openStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	_, err := s.js.CreateOrUpdateStream(ctx, cfg)
	if err == nil {
		return nil
	}
	old, e := s.js.Stream(ctx, cfg.Name)
	if e == nil && old.CachedInfo().Config.PersistMode != cfg.PersistMode {
		// The stream of an early version. How it writes cannot be changed, and does no harm.
		cfg.PersistMode = old.CachedInfo().Config.PersistMode
		_, err = s.js.CreateOrUpdateStream(ctx, cfg)
		if err == nil {
			return nil
		}
	}
	if !errors.Is(e, jetstream.ErrStreamNotFound) || !s.o.Rebuild {
		return fmt.Errorf("cannot open stream %s: %w", cfg.Name, err)
	}
	// Even the messages cannot be read. The folder stays for people who want to look at it.
	s.log.Error("a stream cannot be read; its folder is set aside and the stream made anew", "stream", cfg.Name, "error", err)
	s.halt()
	if err := s.folder().setAside(cfg.Name); err != nil {
		return fmt.Errorf("cannot set the broken stream %s aside: %w", cfg.Name, err)
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	if _, err := s.js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("cannot make stream %s: %w", cfg.Name, err)
	}
	return nil
}

// brokenStreams are those with a folder that the server did not load.
func (s *Server) brokenStreams(ctx context.Context) ([]string, error) {
	var broken []string
	for _, name := range streamNames {
		if _, err := os.Stat(s.folder().stream(name)); err != nil {
			continue // a new one
		}
		_, err := s.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			broken = append(broken, name)
		} else if err != nil {
			return nil, fmt.Errorf("cannot look up stream %s: %w", name, err)
		}
	}
	return broken, nil
}

// repair removes the files that describe the broken streams, so that they can
// be made anew over their messages.
func (s *Server) repair(ctx context.Context, broken []string) error {
	s.halt()
	for _, name := range broken {
		s.log.Warn("a stream did not load; its description is made anew, its messages are kept", "stream", name)
		if err := s.folder().dropMeta(name); err != nil {
			return fmt.Errorf("cannot repair stream %s: %w", name, err)
		}
	}
	if err := s.folder().dropLanes(); err != nil {
		return err
	}
	return s.start(ctx)
}

func (s *Server) folder() folder { return folder(s.o.Dir) }

// folder is where nats-server keeps its data.
type folder string

func (f folder) streams() string { return filepath.Join(string(f), "jetstream", "$G", "streams") }

func (f folder) stream(name string) string { return filepath.Join(f.streams(), name) }

// dropLanes removes the state files of lanes. A lane made anew over an old file would adopt
// it, and skip messages that the file calls acked.
func (f folder) dropLanes() error {
	if err := dropLanesIn(filepath.Join(f.stream(JobsStream), "obs")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove old lanes in %s: %w", f, err)
	}
	return nil
}

func dropLanesIn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isLaneName(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return fsync.Dir(dir)
}

// isLaneName says whether a consumer has the name of a lane: <type>-<1..5>.
func isLaneName(name string) bool {
	n := len(name)
	return n > 2 && name[n-2] == '-' && jobs.Priority(name[n-1]-'0').Valid()
}

// dropMeta removes the description of a stream, but not its messages.
func (f folder) dropMeta(name string) error {
	for _, file := range []string{metaFile, metaSum} {
		err := os.Remove(filepath.Join(f.stream(name), file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// setAside moves a stream's folder away, so that the server does not find it.
func (f folder) setAside(name string) error {
	dir := filepath.Join(string(f), "broken")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	to := filepath.Join(dir, name+"-"+time.Now().UTC().Format("20060102T150405.000"))
	err := os.Rename(f.stream(name), to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncMeta makes the descriptions of the streams durable. The server writes them without
// fsync, and a power cut could leave them empty.
func (f folder) syncMeta() error {
	var paths []string
	for _, name := range streamNames {
		dir := f.stream(name)
		paths = append(paths, filepath.Join(dir, metaFile), filepath.Join(dir, metaSum), dir)
	}
	for dir := f.streams(); len(dir) >= len(f); dir = filepath.Dir(dir) {
		paths = append(paths, dir)
	}
	for _, path := range paths {
		if err := fsync.Dir(path); err != nil {
			return fmt.Errorf("cannot make the broker's files durable: %w", err)
		}
	}
	return nil
}
