package tuning

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Topology is what of a machine's CPUs this process may use, and how they hang
// together. automaxprocs reads none of it.
type Topology struct {
	Online  CPUSet   `json:"online"`       // CPUs of the machine
	Allowed CPUSet   `json:"allowed"`      // of them, left by cpuset and affinity
	Cores   []CPUSet `json:"cores"`        // the allowed CPUs by physical core: SMT siblings share one
	Nodes   []Node   `json:"numa_nodes"`   // NUMA nodes with allowed CPUs
	Memory  CPUSet   `json:"memory_nodes"` // NUMA nodes that memory may come from
}

// Node is a NUMA node.
type Node struct {
	ID   int    `json:"id"`
	CPUs CPUSet `json:"cpus"` // the allowed ones
}

// ReadTopology reads /proc/self/status (proc_pid_status(5)) and
// /sys/devices/system (Documentation/ABI/stable/sysfs-devices-system-cpu and
// -node) below root. What /sys does not tell, as in some sandboxes, is taken
// for one CPU a core and one node. Where /proc is missing the error is
// fs.ErrNotExist.
func ReadTopology(root string) (Topology, error) {
	status, err := readProc(root, "/proc/self/status")
	if err != nil {
		return Topology{}, err
	}
	var t Topology
	if t.Allowed, err = statusSet(status, "Cpus_allowed_list"); err != nil {
		return Topology{}, err
	}
	if t.Memory, err = statusSet(status, "Mems_allowed_list"); err != nil {
		return Topology{}, err
	}
	const system = "/sys/devices/system"
	if t.Online, err = readSet(root, system+"/cpu/online"); err != nil {
		return Topology{}, err
	}
	if t.Online == nil {
		t.Online = t.Allowed
	}
	t.Allowed = t.Allowed.and(t.Online) // the mask also names CPUs that could be plugged in
	grouped := make(map[int]bool)
	for _, cpu := range t.Allowed {
		if grouped[cpu] {
			continue
		}
		siblings, err := readSet(root, fmt.Sprintf("%s/cpu/cpu%d/topology/thread_siblings_list", system, cpu))
		if err != nil {
			return Topology{}, err
		}
		core := siblings.and(t.Allowed)
		if len(core) == 0 {
			core = CPUSet{cpu}
		}
		for _, c := range core {
			grouped[c] = true
		}
		t.Cores = append(t.Cores, core)
	}
	nodes, err := readSet(root, system+"/node/online")
	if err != nil {
		return Topology{}, err
	}
	for _, id := range nodes {
		cpus, err := readSet(root, fmt.Sprintf("%s/node/node%d/cpulist", system, id))
		if err != nil {
			return Topology{}, err
		}
		if cpus = cpus.and(t.Allowed); len(cpus) > 0 {
			t.Nodes = append(t.Nodes, Node{ID: id, CPUs: cpus})
		}
	}
	if len(t.Nodes) == 0 {
		t.Nodes = []Node{{CPUs: t.Allowed}}
	}
	return t, nil
}

// statusSet finds a line "NAME:\tLIST" of /proc/self/status.
func statusSet(status []byte, name string) (CPUSet, error) {
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			set, err := ParseCPUSet(value)
			if err != nil {
				return nil, fmt.Errorf("read topology: %s: %w", name, err)
			}
			return set, nil
		}
	}
	return nil, fmt.Errorf("read topology: /proc/self/status has no %s: %w", name, fs.ErrNotExist)
}

// readSet reads a file that holds one list; a missing file is an empty set.
func readSet(root, name string) (CPUSet, error) {
	text, err := readProc(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	set, err := ParseCPUSet(string(text))
	if err != nil {
		return nil, fmt.Errorf("read topology: %s: %w", filepath.ToSlash(name), err)
	}
	return set, nil
}

// SMT reports whether two of the allowed CPUs share a core.
func (t Topology) SMT() bool { return len(t.Cores) < len(t.Allowed) }

// Advice says what an operator may want to do about the topology; nothing here
// is done by Parley itself, because each needs to be measured with the
// operator's own load.
func (t Topology) Advice() (advice []string) {
	if n := len(t.Online) - len(t.Allowed); n > 0 {
		advice = append(advice, fmt.Sprintf("cpuset or affinity leaves CPUs %v of %v", t.Allowed, t.Online))
	}
	if t.SMT() {
		advice = append(advice, fmt.Sprintf("the %d CPUs are %d cores with SMT siblings, so full load does not bring %d times one CPU; compare with runtime.smt off under your own load",
			len(t.Allowed), len(t.Cores), len(t.Allowed)))
	}
	if len(t.Nodes) > 1 {
		n := t.Nodes[0]
		advice = append(advice, fmt.Sprintf("the CPUs lie on %d NUMA nodes and Go places goroutines and memory without regard to them; run one process a node, such as: numactl --cpunodebind=%d --membind=%d platform run",
			len(t.Nodes), n.ID, n.ID))
	}
	if len(t.Nodes) == 1 && len(t.Memory) > 0 && len(t.Memory.and(CPUSet{t.Nodes[0].ID})) == 0 {
		advice = append(advice, fmt.Sprintf("the CPUs lie on NUMA node %d but memory may come from %v only, so every access is remote; give cpuset.mems the node of cpuset.cpus",
			t.Nodes[0].ID, t.Memory))
	}
	return advice
}
