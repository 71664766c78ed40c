package vfs

import (
	"path"
	"slices"
	"strings"
	"sync"
)

// OpKind names operations of a Mem; kinds can be joined with |.
type OpKind uint32

// The operations. OpStat is FS.Stat and File.Size; OpOpen is Open and OpenRead.
const (
	OpCreate OpKind = 1 << iota
	OpOpen
	OpRename
	OpRemove
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpLockHolder
	OpRead
	OpWrite
	OpTruncate
	OpDatasync
	OpPreallocate
	OpMap
	OpReadUncached
	OpClose

	// OpAny is every operation.
	OpAny OpKind = 1<<iota - 1
	// OpChange is every operation that changes the disk or what it will hold.
	OpChange = OpCreate | OpRename | OpRemove | OpMkdir | OpSyncDir | OpLock | OpWrite | OpTruncate | OpDatasync |
		OpPreallocate
)

var opNames = [...]string{"create", "open", "rename", "remove", "mkdir", "readdir", "stat", "syncdir", "lock",
	"lockholder", "read", "write", "truncate", "datasync", "preallocate", "map", "readuncached", "close"}

// String returns the names of the kinds, joined with |.
func (k OpKind) String() string {
	var s []string
	for i, name := range opNames {
		if k&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, "|")
}

// Op is one operation on a Mem.
type Op struct {
	N       int64 // operations are counted from 1
	Kind    OpKind
	Name    string // as the caller gave it
	NewName string // of a rename
	Off     int64  // of reads and writes; the size for OpTruncate and OpPreallocate
	Len     int64  // of reads, writes and maps
}

// Rule makes operations fail or wait.
type Rule struct {
	// Kind selects operations; zero means all.
	Kind OpKind
	// Name is a path.Match pattern for the last part of the name, or, if it has a slash, for the whole name from the root
	// without the leading slash. A rename matches with either name. Empty means all; a malformed pattern matches none.
	Name string
	// Nth is the first matching operation to be hit, counted from 1 since Inject; zero means 1.
	Nth int
	// Forever hits all later ones too.
	Forever bool
	// Err is what the operation fails with, wrapped with operation and name; nil makes it only wait. The operation has no
	// effect then, except: WriteAt see Short; Datasync leaves all unsynced sectors clean but off the disk; Close closes.
	Err error
	// Short is how many bytes a failed WriteAt says it wrote. With EIO all its bytes get into the cache, and the sectors
	// they touch count as clean though the disk does not have them; with other errors Short bytes are written as usual.
	Short int
	// Landed says which sectors get to the disk although the write (EIO) or Datasync failed; nil means none.
	Landed Chooser
	// Stall is received from before the operation starts: closing it releases all that wait. Nil does not wait.
	Stall <-chan struct{}
}

// Injected is a Rule at work.
type Injected struct {
	rule Rule
	c    *opCounter
	seen int // matching operations; guarded by c.mu
	hits int // guarded by c.mu
}

// fault is what an operation has to act out.
type fault struct {
	err     error
	partial bool // the operation has an effect all the same
	short   int
	landed  Chooser
}

// opCounter sees every operation before it happens.
type opCounter struct {
	mu      sync.Mutex // guards what follows; no operation waits while holding it
	n       int64
	byKind  [len(opNames)]int64
	rules   []*Injected
	hook    func(Op) error
	tracing bool
	trace   []Op
}

// Inject adds a rule. Every rule counts the operations that match it; of several that hit the same operation the oldest
// with an error decides.
func (m *Mem) Inject(r Rule) *Injected {
	in := &Injected{rule: r, c: &m.counter}
	in.c.mu.Lock()
	defer in.c.mu.Unlock()
	in.c.rules = append(in.c.rules, in)
	return in
}

// Hits returns how many operations the rule has hit, those that are waiting included.
func (in *Injected) Hits() int {
	in.c.mu.Lock()
	defer in.c.mu.Unlock()
	return in.hits
}

// Remove ends the rule; operations it has hit are not called back.
func (in *Injected) Remove() {
	in.c.mu.Lock()
	defer in.c.mu.Unlock()
	in.c.rules = slices.DeleteFunc(in.c.rules, func(r *Injected) bool { return r == in })
}

// SetHook has hook called before each operation, on its goroutine and with no lock held: it may wait, or call Crash. An
// error works like Rule.Err. Nil removes the hook.
func (m *Mem) SetHook(hook func(Op) error) {
	m.counter.mu.Lock()
	defer m.counter.mu.Unlock()
	m.counter.hook = hook
}

// Ops returns how many operations of these kinds were started.
func (m *Mem) Ops(kinds OpKind) (n int64) {
	m.counter.mu.Lock()
	defer m.counter.mu.Unlock()
	for i, k := range m.counter.byKind {
		if kinds&(1<<i) != 0 {
			n += k
		}
	}
	return n
}

// SetTrace starts (afresh) or stops recording operations.
func (m *Mem) SetTrace(on bool) {
	m.counter.mu.Lock()
	defer m.counter.mu.Unlock()
	m.counter.tracing = on
	if on {
		m.counter.trace = nil
	}
}

// Trace returns the recorded operations.
func (m *Mem) Trace() []Op {
	m.counter.mu.Lock()
	defer m.counter.mu.Unlock()
	return slices.Clone(m.counter.trace)
}

// begin counts an operation, waits as the rules and the hook say and returns the fault that it meets, or nil.
func (m *Mem) begin(op Op) *fault {
	hits, hook, op := m.counter.count(op)
	var ft *fault
	for _, r := range hits {
		if r.Stall != nil {
			<-r.Stall
		}
		if r.Err != nil && ft == nil {
			ft = &fault{err: r.Err, short: r.Short, landed: r.Landed}
		}
	}
	if hook != nil {
		if err := hook(op); err != nil && ft == nil {
			ft = &fault{err: err}
		}
	}
	if ft != nil {
		ft.partial = op.Kind == OpWrite || op.Kind == OpDatasync
	}
	return ft
}

func (c *opCounter) count(op Op) (hits []*Rule, hook func(Op) error, counted Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	op.N = c.n
	for i := range c.byKind {
		if op.Kind == 1<<i {
			c.byKind[i]++
		}
	}
	if c.tracing {
		c.trace = append(c.trace, op)
	}
	for _, in := range c.rules {
		if !in.rule.matches(op) {
			continue
		}
		in.seen++
		if nth := max(in.rule.Nth, 1); in.seen == nth || in.seen > nth && in.rule.Forever {
			in.hits++
			hits = append(hits, &in.rule)
		}
	}
	return hits, c.hook, op
}

func (r *Rule) matches(op Op) bool {
	if r.Kind != 0 && r.Kind&op.Kind == 0 {
		return false
	}
	return r.Name == "" || r.matchesName(op.Name) || op.Kind == OpRename && r.matchesName(op.NewName)
}

func (r *Rule) matchesName(name string) bool {
	name = cleanName(name)[1:]
	if !strings.Contains(r.Name, "/") {
		name = path.Base(name)
	}
	ok, err := path.Match(r.Name, name)
	return ok && err == nil
}
