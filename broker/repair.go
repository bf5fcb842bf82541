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
)

// What a crash or a power cut can leave of the server's folder, and how to get
// a working one out of it. Nothing here decides about jobs: whoever opens the
// broker compares the streams with its own records afterwards.

const (
	metaFile = "meta.inf"
	metaSum  = "meta.sum"
)

func (b *Broker) streamsDir() string { return filepath.Join(b.o.Dir, "jetstream", "$G", "streams") }

func (b *Broker) streamDir(name string) string { return filepath.Join(b.streamsDir(), name) }

// dropLanes removes the lanes' state files. A lane that is made anew over an
// old file would adopt it, and skip messages that it believes were settled.
func (b *Broker) dropLanes() error {
	dir := filepath.Join(b.streamDir(JobsStream), "obs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
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
	return jobs.SyncDir(dir)
}

// isLaneName says whether a consumer has the name of a lane: <type>-<1..5>.
func isLaneName(name string) bool {
	n := len(name)
	return n > 2 && name[n-2] == '-' && jobs.Priority(name[n-1]-'0').Valid()
}

// openStreams makes the streams, or adopts them with today's settings. A stream
// whose folder is there but which did not load is repaired first.
func (b *Broker) openStreams(ctx context.Context) error {
	broken, err := b.brokenStreams(ctx)
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		if err := b.repair(ctx, broken); err != nil {
			return err
		}
	}
	configs := []jetstream.StreamConfig{b.o.jobsConfig(0), statusConfig(), notificationsConfig()}
	for _, cfg := range configs {
		if err := b.openStream(ctx, cfg); err != nil {
			return err
		}
	}
	return b.syncMeta(b.streamsDir(), streamNames[:]...)
}

func (b *Broker) openStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	_, err := b.js.CreateOrUpdateStream(ctx, cfg)
	if err == nil {
		return nil
	}
	if _, e := b.js.Stream(ctx, cfg.Name); !errors.Is(e, jetstream.ErrStreamNotFound) || !b.o.Rebuild {
		return fmt.Errorf("cannot open stream %s: %w", cfg.Name, err)
	}
	// even its messages cannot be read: keep the folder for whoever wants to look
	b.log.Error("a stream cannot be read; its folder is set aside and the stream made anew", "stream", cfg.Name, "error", err)
	b.halt()
	if err := b.setAside(cfg.Name); err != nil {
		return fmt.Errorf("cannot set the broken stream %s aside: %w", cfg.Name, err)
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	if _, err := b.js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("cannot make stream %s: %w", cfg.Name, err)
	}
	return nil
}

func (b *Broker) setAside(name string) error {
	dir := filepath.Join(b.o.Dir, "broken")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	to := filepath.Join(dir, name+"-"+time.Now().UTC().Format("20060102T150405.000"))
	err := os.Rename(b.streamDir(name), to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// brokenStreams are those with a folder that the server did not load.
func (b *Broker) brokenStreams(ctx context.Context) ([]string, error) {
	var broken []string
	for _, name := range streamNames {
		if _, err := os.Stat(b.streamDir(name)); err != nil {
			continue // a new one
		}
		_, err := b.js.Stream(ctx, name)
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
func (b *Broker) repair(ctx context.Context, broken []string) error {
	b.halt()
	for _, name := range broken {
		b.log.Warn("a stream did not load; its description is made anew, its messages are kept", "stream", name)
		for _, file := range []string{metaFile, metaSum} {
			err := os.Remove(filepath.Join(b.streamDir(name), file))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot repair stream %s: %w", name, err)
			}
		}
	}
	if err := b.dropLanes(); err != nil {
		return fmt.Errorf("cannot remove old lanes: %w", err)
	}
	return b.start(ctx)
}

// syncMeta makes the descriptions of streams in dir durable. The
// server writes them without fsync, and a power cut could leave them empty.
func (b *Broker) syncMeta(dir string, names ...string) error {
	for _, name := range names {
		sub := filepath.Join(dir, name)
		for _, path := range []string{filepath.Join(sub, metaFile), filepath.Join(sub, metaSum), sub} {
			if err := jobs.SyncDir(path); err != nil {
				return fmt.Errorf("cannot make the broker's files durable: %w", err)
			}
		}
	}
	for ; len(dir) >= len(b.o.Dir); dir = filepath.Dir(dir) {
		if err := jobs.SyncDir(dir); err != nil {
			return fmt.Errorf("cannot make the broker's files durable: %w", err)
		}
	}
	return nil
}
