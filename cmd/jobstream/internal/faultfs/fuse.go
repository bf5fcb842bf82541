//go:build linux

package faultfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount mounts the disk in a folder. It fails if the machine has no FUSE, or this
// process may not mount. unmount may be called more than once; open files stay with
// their processes.
func Mount(d *Disk, folder string) (unmount func() error, err error) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, fmt.Errorf("no FUSE on this machine: %w", err)
	}
	fs := &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), d: d,
		nodes: map[uint64]*node{fuse.FUSE_ROOT_ID: d.root}, lookups: make(map[uint64]uint64), dirs: make(map[uint64][]fuse.DirEntry),
	}
	server, err := fuse.NewServer(fs, folder, &fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs", DirectMountStrict: true, DisableXAttrs: true, DisableReadDirPlus: true,
		ExplicitDataCacheControl: true, MaxWrite: 1 << 20, AllowOther: true,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot mount a FUSE file system: %w", err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("cannot mount a FUSE file system: %w", err)
	}
	return func() error {
		err := syscall.Unmount(folder, syscall.MNT_DETACH)
		if errors.Is(err, syscall.EINVAL) { // it is no longer mounted
			err = nil
		}
		return err
	}, nil
}

// fileSystem answers the kernel. Only the kernel uses the disk, so it may cache every
// answer.
type fileSystem struct {
	fuse.RawFileSystem
	d *Disk

	// under d.mu:
	nodes    map[uint64]*node  // those that the kernel has looked up
	lookups  map[uint64]uint64 // how often it has
	dirs     map[uint64][]fuse.DirEntry
	lastOpen uint64
}

const forEver = 3600 // seconds for which the kernel may cache an answer

func (fs *fileSystem) node(id uint64) *node { return fs.nodes[id] }

// do runs f; see Disk.do.
func (fs *fileSystem) do(f func() syscall.Errno) fuse.Status { return fuse.Status(fs.d.do(f)) }

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Size, out.Nlink, out.Blksize = n.id, n.mode, uint64(n.seen.size), 1, pageSize
	for _, p := range n.seen.pages {
		if p != nil {
			out.Blocks += pageSize / sectorSize
		}
	}
	out.Owner = fuse.Owner{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	out.SetTimes(&n.changed, &n.changed, &n.changed)
}

// entry describes a node to the kernel.
func (fs *fileSystem) entry(n *node, out *fuse.EntryOut) {
	fs.lookups[n.id]++
	fs.nodes[n.id] = n
	out.NodeId, out.Generation = n.id, 1
	out.EntryValid, out.AttrValid = forEver, forEver
	n.attr(&out.Attr)
}

func (fs *fileSystem) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		n := fs.node(header.NodeId).names[name]
		if n == nil {
			return syscall.ENOENT
		}
		fs.entry(n, out)
		return 0
	})
}

func (fs *fileSystem) Forget(id, lookups uint64) {
	fs.d.mu.Lock()
	defer fs.d.mu.Unlock()
	if id == fuse.FUSE_ROOT_ID {
		return
	}
	if fs.lookups[id] -= min(lookups, fs.lookups[id]); fs.lookups[id] == 0 {
		delete(fs.lookups, id)
		delete(fs.nodes, id)
	}
}

func (fs *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		out.SetTimeout(forEver * time.Second)
		fs.node(in.NodeId).attr(&out.Attr)
		return 0
	})
}

func (fs *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		n := fs.node(in.NodeId)
		if size, ok := in.GetSize(); ok {
			n.truncate(int64(size))
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		out.SetTimeout(forEver * time.Second)
		n.attr(&out.Attr)
		return 0
	})
}

func (fs *fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

func (fs *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		_, errno := fs.make(in.NodeId, name, syscall.S_IFDIR|in.Mode, out)
		return errno
	})
}

func (fs *fileSystem) make(dir uint64, name string, mode uint32, out *fuse.EntryOut) (*node, syscall.Errno) {
	in := fs.node(dir)
	if in.names[name] != nil {
		return nil, syscall.EEXIST
	}
	n := fs.d.newNode(mode)
	fs.d.rename(n, place{}, place{in, name})
	fs.entry(n, out)
	return n, 0
}

func (fs *fileSystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		_, errno := fs.make(in.NodeId, name, syscall.S_IFREG|in.Mode, &out.EntryOut)
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		return errno
	})
}

func (fs *fileSystem) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.remove(header, name)
}

func (fs *fileSystem) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.remove(header, name)
}

func (fs *fileSystem) remove(header *fuse.InHeader, name string) fuse.Status {
	return fs.do(func() syscall.Errno {
		dir := fs.node(header.NodeId)
		n := dir.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		if len(n.names) > 0 {
			return syscall.ENOTEMPTY
		}
		fs.d.rename(n, place{dir, name}, place{})
		return 0
	})
}

func (fs *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, to string) fuse.Status {
	return fs.do(func() syscall.Errno {
		dir, toDir := fs.node(in.NodeId), fs.node(in.Newdir)
		n, old := dir.names[name], toDir.names[to]
		switch {
		case in.Flags != 0:
			return syscall.EINVAL // RENAME_EXCHANGE or RENAME_NOREPLACE, which nobody uses here
		case n == nil:
			return syscall.ENOENT
		case old != nil && len(old.names) > 0:
			return syscall.ENOTEMPTY
		}
		fs.d.rename(n, place{dir, name}, place{toDir, to})
		return 0
	})
}

func (fs *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		if in.Flags&syscall.O_TRUNC != 0 {
			fs.node(in.NodeId).truncate(0)
		}
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		return 0
	})
}

func (fs *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := 0
	status := fs.do(func() syscall.Errno {
		n = fs.node(in.NodeId).read(buf, int64(in.Offset))
		return 0
	})
	return fuse.ReadResultData(buf[:n]), status
}

func (fs *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	status := fs.do(func() syscall.Errno {
		n := fs.node(in.NodeId)
		n.write(data, int64(in.Offset))
		if in.Flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0 {
			return fs.d.sync(n)
		}
		return 0
	})
	return uint32(len(data)), status
}

func (fs *fileSystem) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	return fs.Write(cancel, in, slices.Concat(data...))
}

func (fs *fileSystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.do(func() syscall.Errno { return fs.d.sync(fs.node(in.NodeId)) })
}

func (fs *fileSystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.do(func() syscall.Errno { return fs.d.sync(fs.node(in.NodeId)) })
}

func (fs *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (fs *fileSystem) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// OpenDir copies the contents of the folder, so that reading it works while names
// change.
func (fs *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return fs.do(func() syscall.Errno {
		var entries []fuse.DirEntry
		for name, n := range fs.node(in.NodeId).names {
			entries = append(entries, fuse.DirEntry{Name: name, Ino: n.id, Mode: n.mode})
		}
		slices.SortFunc(entries, func(a, b fuse.DirEntry) int { return cmp.Compare(a.Name, b.Name) })
		fs.lastOpen++
		out.Fh = fs.lastOpen
		fs.dirs[out.Fh] = entries
		return 0
	})
}

func (fs *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.do(func() syscall.Errno {
		entries := fs.dirs[in.Fh]
		for i := int(in.Offset); i < len(entries); i++ {
			e := entries[i]
			e.Off = uint64(i + 1)
			if !out.AddDirEntry(e) {
				break
			}
		}
		return 0
	})
}

func (fs *fileSystem) ReleaseDir(in *fuse.ReleaseIn) {
	fs.d.mu.Lock()
	defer fs.d.mu.Unlock()
	delete(fs.dirs, in.Fh)
}

// StatFs reports a large disk.
func (fs *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks = 1 << 40 / pageSize
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks, Bavail: blocks, Files: 1 << 20, Ffree: 1 << 20, Bsize: pageSize, Frsize: pageSize, NameLen: 255}
	return fuse.OK
}
