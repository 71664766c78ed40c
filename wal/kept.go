package wal

import (
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// mapBudget bounds the mappings that the files of a process keep for later use, so that all readers together stay below
// the kernel's limit of 65,530 (vm.max_map_count), beyond which the host program could not map anything either.
type mapBudget struct {
	limit int64
	used  atomic.Int64
}

// processMaps is half of what Linux allows by default. A segment takes two, content and index, and a filter one, so that it
// holds about 14,000 segments.
var processMaps = &mapBudget{limit: 32_768}

// sweepLooks bounds how many files one call looks at for some that can go, so that no caller pays for a long list: each
// call adds one file at most, so that the next ones make up for it.
const sweepLooks = 128

// place is where readers find a mapped file without a lock: nil, or one that the table has, or had until just now.
type place = atomic.Pointer[mapped]

// files opens and maps finished segments, their indexes and filters, keeps those that were used lately, and never
// unmaps what is pinned. Which go is decided as by a clock: what has been used since the hand came by stays another round.
type files struct {
	fsys   vfs.FS
	dir    string
	keep   int // files that stay whatever other readers use; also the most that keep a descriptor
	budget *mapBudget
	run    string      // whose segments they are; "" while that is not known
	blocks *blockCache // of compressed segments
	warn   func(error) // a damaged index or filter that was worked around

	mu     sync.Mutex
	closed bool
	tails  int                // that follow, and read to the end although the log is being closed
	ending func()             // what the last of them has to do; nil: nothing is being closed
	byKey  map[string]*mapped // loaded or being loaded
	mapped ring               // loaded
	packed ring               // loaded, with a descriptor: compressed segments
	over   atomic.Bool        // more is kept than should be: what could go was in use
}

// ring is what the hand of a clock goes over. It is guarded by files.mu.
type ring struct {
	all  []*mapped
	hand int
	maps int64
}

func (r *ring) add(m *mapped) {
	m.in, m.at = r, len(r.all)
	r.all = append(r.all, m)
	r.maps += m.maps()
}

func (r *ring) remove(m *mapped) {
	last := len(r.all) - 1
	moved := r.all[last]
	r.all[m.at], moved.at = moved, m.at
	r.all[last] = nil
	r.all = r.all[:last]
	r.maps -= m.maps()
	m.in = nil
}

// idle looks at up to n files, takes that from n, and returns one that nobody has used since the hand came by; nil if
// there is none.
func (r *ring) idle(n *int) *mapped {
	for ; *n > 0 && len(r.all) > 0; *n-- {
		if r.hand >= len(r.all) {
			r.hand = 0
		}
		m := r.all[r.hand]
		r.hand++ // when m goes the last one takes its place, behind the hand
		if m.users.Load() == 1 && !m.used.Swap(false) {
			return m
		}
	}
	return nil
}

// acquire pins m unless it has been closed.
func (m *mapped) acquire() bool {
	for n := m.users.Load(); n > 0; n = m.users.Load() {
		if m.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// release is called for each pin, and when the table lets go of m. Whoever comes last closes it.
func (m *mapped) release() {
	if m.users.Add(-1) == 0 {
		m.close()
	}
}

// maps is the number of mappings that m holds.
func (m *mapped) maps() (n int64) {
	for _, has := range [...]bool{m.data != nil, m.file != nil, m.filter != nil} {
		if has {
			n++
		}
	}
	return n
}

// held pins what is loaded at a place; nil if nothing is.
func (fs *files) held(at *place) *mapped {
	if m := at.Load(); m != nil && m.owner == fs && m.acquire() {
		return m
	}
	return nil
}

// pin returns what is mapped under key, loading it if need be; later calls find it at its place. Errors are not remembered.
func (fs *files) pin(key string, at *place, load func(m *mapped) error) (*mapped, error) {
	fs.mu.Lock()
	if fs.closed {
		fs.mu.Unlock()
		return nil, format.ErrClosed
	}
	m := fs.byKey[key]
	if m == nil {
		m = &mapped{key: key, owner: fs, place: at}
		m.users.Store(1) // the table's
		fs.byKey[key] = m
	}
	m.users.Add(1)
	fs.mu.Unlock()
	m.once.Do(func() { m.err = load(m) })
	fs.mu.Lock()
	var drop []*mapped
	if fs.byKey[key] == m {
		switch {
		case m.err != nil:
			drop = append(drop, fs.take(m))
		case m.in == nil:
			drop = fs.add(m)
		}
	}
	fs.mu.Unlock()
	releaseAll(drop)
	if m.err != nil {
		err := m.err
		m.release()
		return nil, err
	}
	return m, nil
}

// add keeps what has been loaded, lets readers find it, and returns what has to go for it. The lock is held.
func (fs *files) add(m *mapped) []*mapped {
	if m.packed != nil {
		fs.packed.add(m)
	} else {
		fs.mapped.add(m)
	}
	fs.budget.used.Add(m.maps())
	m.place.CompareAndSwap(nil, m)
	return fs.sweep()
}

// take takes a file out of the table; the caller releases it. The lock is held.
func (fs *files) take(m *mapped) *mapped {
	delete(fs.byKey, m.key)
	m.place.CompareAndSwap(m, nil)
	if m.in != nil {
		m.in.remove(m)
		fs.budget.used.Add(-m.maps())
	}
	return m
}

// sweep takes out what is too much; the caller releases it. The lock is held.
func (fs *files) sweep() (drop []*mapped) {
	looks := sweepLooks
	excess := func() *ring {
		switch {
		case len(fs.packed.all) > fs.keep:
			return &fs.packed
		case len(fs.mapped.all) > fs.keep && fs.budget.used.Load() > fs.budget.limit:
			return &fs.mapped
		}
		return nil
	}
	r := excess()
	for ; r != nil; r = excess() {
		m := r.idle(&looks)
		if m == nil {
			break
		}
		drop = append(drop, fs.take(m))
	}
	fs.over.Store(r != nil)
	return drop
}

func (fs *files) unpin(m *mapped) {
	if !m.used.Load() {
		m.used.Store(true)
	}
	m.release()
	if fs.over.Load() {
		fs.mu.Lock()
		drop := fs.sweep()
		fs.mu.Unlock()
		releaseAll(drop)
	}
}

// forget lets go of what is mapped under key, whose file has been replaced: at once, or when it is unpinned.
func (fs *files) forget(key string) {
	fs.letGo(func(m *mapped) bool { return m.key == key })
}

// letGo lets go of what is loaded and chosen: at once, or when it is unpinned.
func (fs *files) letGo(chosen func(m *mapped) bool) {
	fs.mu.Lock()
	var drop []*mapped
	for _, m := range fs.byKey {
		if m.in != nil && chosen(m) {
			drop = append(drop, fs.take(m))
		}
	}
	fs.mu.Unlock()
	releaseAll(drop)
}

// enter keeps everything open for a tail until it leaves; false: it is closed already.
func (fs *files) enter() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed || fs.ending != nil {
		return false
	}
	fs.tails++
	return true
}

func (fs *files) leave() {
	fs.mu.Lock()
	fs.tails--
	end := fs.ending
	if fs.tails > 0 {
		end = nil
	}
	fs.mu.Unlock()
	if end != nil {
		end()
		fs.closeAll()
	}
}

// closeBehindTails calls end and then closeAll: now, or when the last tail has come to its end.
func (fs *files) closeBehindTails(end func()) {
	fs.mu.Lock()
	wait := fs.tails > 0
	if fs.ending == nil {
		fs.ending = end // nobody enters any more
	}
	fs.mu.Unlock()
	if !wait {
		end()
		fs.closeAll()
	}
}

// closeAll unmaps everything; what is pinned goes when it is unpinned.
func (fs *files) closeAll() {
	fs.mu.Lock()
	fs.closed = true
	var drop []*mapped
	for _, m := range fs.byKey {
		drop = append(drop, fs.take(m))
	}
	fs.mu.Unlock()
	releaseAll(drop)
}

func releaseAll(list []*mapped) {
	for _, m := range list {
		m.release()
	}
}
