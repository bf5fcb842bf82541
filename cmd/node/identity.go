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
	// Bootstrap says that the cluster has begun with this folder.
	Bootstrap bool `json:"bootstrap,omitempty"`
	// Removed says that the node was removed from the cluster, for ever.
	Removed bool `json:"removed,omitempty"`
}

// identityPath is where it is.
func (f Folders) identityPath() string { return filepath.Join(f.Root, identityFile) }

// identity is what the file says. The error is fs.ErrNotExist if there is none.
func (f Folders) identity() (is identity, err error) {
	path := filepath.Join(f.Root, identityFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return is, err
	}
	if err := json.Unmarshal(text, &is); err != nil {
		return is, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return is, nil
}

// claim makes sure that the folder is used as before: by the same member of the same
// cluster, or by none. A new folder is given to want; zero = to a server that is alone.
// What the members have is bound to their names, and a cluster would delete the streams of
// a server that was alone. That may become the first member of a cluster, if want says so:
// then it is not given away yet, see [member.bootstrap].
func (f Folders) claim(want identity) error {
	path := filepath.Join(f.Root, identityFile)
	is, err := f.identity()
	switch {
	case err == nil:
		return is.compare(want, f.Root)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data.dir: %w", err)
	case want == identity{}:
		return nil
	}
	switch _, err := os.Stat(f.Tracker); {
	case errors.Is(err, fs.ErrNotExist) && want.Bootstrap:
		return fmt.Errorf("broker.cluster.bootstrap: there is nothing in %s for a cluster to begin with; leave the key out, and node %s gets a copy of what the others have", f.Root, want.Name)
	case errors.Is(err, fs.ErrNotExist):
		return want.write(path)
	case err != nil:
		return fmt.Errorf("data.dir: %w", err)
	case want.Bootstrap:
		return nil
	}
	return fmt.Errorf("data.dir: %s belongs to a server without a cluster; choose an empty folder for node %s, set broker.cluster.bootstrap if a new cluster shall begin with it, or leave broker.cluster out", f.Root, want.Name)
}

// compare is nil if the folder root of is may be used by want.
func (is identity) compare(want identity, root string) error {
	switch {
	case is.Removed && want != identity{}:
		return fmt.Errorf("node.name: node %s was removed from cluster %s, and its name does not come back; choose a new name and an empty folder, and leave %s as it is or remove it", is.Name, is.Cluster, root)
	case want == identity{}:
		return fmt.Errorf("data.dir: %s belongs to node %s of cluster %s; set broker.cluster as before, or choose another folder", root, is.Name, is.Cluster)
	case is.Cluster != want.Cluster:
		return fmt.Errorf("broker.cluster.name: %s belongs to cluster %s, not %s; set the name as before, or choose an empty folder", root, is.Cluster, want.Cluster)
	case want.Bootstrap && !is.Bootstrap && is.Name == want.Name:
		return fmt.Errorf("broker.cluster.bootstrap: %s belongs to a member of cluster %s already; leave the key out", root, is.Cluster)
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
	return identity{Name: o.Name, Cluster: o.Broker.Cluster.Name, Bootstrap: o.Broker.Bootstrap}
}
