package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"jobstream/jobs/fsync"
)

// identityFile has the name under which a cluster knows a data folder. A folder of a server
// that is alone has none.
const identityFile = "node.json"

// identity is the content of the file.
type identity struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
}

// claim makes sure that the folder is used as before: by the same member of the same
// cluster, or by none. A new folder is given to want; zero = to a server that is alone.
// What the members have is bound to their names, and a cluster would delete the streams of
// a server that was alone.
func (f Folders) claim(want identity) error {
	path := filepath.Join(f.Root, identityFile)
	text, err := os.ReadFile(path)
	var is identity
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &is); err != nil {
			return fmt.Errorf("data.dir: %s cannot be read: %w", path, err)
		}
		return is.compare(want, f.Root)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data.dir: %w", err)
	case want == identity{}:
		return nil
	}
	if _, err := os.Stat(f.Tracker); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("data.dir: %s belongs to a server without a cluster; choose an empty folder for node %s, or leave broker.cluster out", f.Root, want.Name), err)
	}
	return want.write(path)
}

// compare is nil if the folder root of is may be used by want.
func (is identity) compare(want identity, root string) error {
	switch {
	case want == identity{}:
		return fmt.Errorf("data.dir: %s belongs to node %s of cluster %s; set broker.cluster as before, or choose another folder", root, is.Name, is.Cluster)
	case is.Cluster != want.Cluster:
		return fmt.Errorf("broker.cluster.name: %s belongs to cluster %s, not %s; set the name as before, or choose an empty folder", root, is.Cluster, want.Cluster)
	case is.Name != want.Name:
		return fmt.Errorf("node.name: %s belongs to node %s, not %s, and a member keeps its name; set the name as before, or choose an empty folder", root, is.Name, want.Name)
	}
	return nil
}

func (is identity) write(path string) error {
	text, err := json.Marshal(is)
	if err != nil {
		return err
	}
	if err := fsync.Write(path, append(text, '\n')); err != nil {
		return fmt.Errorf("data.dir: the name of the node cannot be written: %w", err)
	}
	return nil
}

// identity is that of the member that these options describe; zero for a node that is alone.
func (o *Options) identity() identity {
	if o.Broker.Cluster == nil {
		return identity{}
	}
	return identity{Name: o.Name, Cluster: o.Broker.Cluster.Name}
}
