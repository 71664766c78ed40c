package vfs

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
)

// tree describes all files and folders of a Mem; it can be told to sync each of them.
func tree(t *testing.T, m *Mem, dir string, sync bool) string {
	t.Helper()
	var s strings.Builder
	if sync {
		must(t, m.SyncDir(dir))
	}
	list, err := m.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			fmt.Fprintf(&s, "%s/\n%s", name, tree(t, m, name, sync))
			continue
		}
		if sync {
			f, err := m.Open(name)
			must(t, err)
			must(t, f.Datasync())
			must(t, f.Close())
		}
		fmt.Fprintf(&s, "%s=%x\n", name, content(t, m, name))
	}
	return s.String()
}

// shuffle does one random operation; most of those that make no sense fail, which is fine.
func shuffle(m *Mem, r *rand.Rand) {
	dirs := []string{"/", "/d", "/e", "/d/f"}
	any := func() string { return path.Join(dirs[r.IntN(4)], []string{"a", "b", "c", "f"}[r.IntN(4)]) }
	switch r.IntN(9) {
	case 0:
		m.MkdirAll(dirs[r.IntN(4)])
	case 1, 2:
		if f, err := m.Create(any()); err == nil {
			f.WriteAt([]byte{byte(r.Uint32())}, r.Int64N(40))
			f.Close()
		}
	case 3:
		if f, err := m.Open(any()); err == nil {
			f.WriteAt([]byte{byte(r.Uint32()), 0, 1}, r.Int64N(40))
			if r.IntN(2) == 0 {
				f.Truncate(r.Int64N(40))
			}
			if r.IntN(3) == 0 {
				f.Datasync()
			}
			f.Close()
		}
	case 4, 5:
		m.Rename(any(), any())
	case 6:
		m.Rename(dirs[1+r.IntN(3)], dirs[1+r.IntN(3)])
	case 7:
		m.Remove(any())
	case 8:
		m.SyncDir(dirs[r.IntN(4)])
	}
}

func TestLosingNothingIsWhatProgramsSeeAndSoIsLosingAllAfterAFullSync(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := NewMem(MemOptions{SectorSize: 8, Capacity: 1 << 20})
		for step := range 60 {
			shuffle(m, r)
			now := tree(t, m, "/", false)
			kept := m.Crash(KeepAll())
			if got := tree(t, kept, "/", false); got != now {
				t.Fatalf("seed %d, step %d: losing nothing leaves\n%sof\n%s", seed, step, got, now)
			}
			killed := m.Kill()
			if got := tree(t, killed, "/", false); got != now {
				t.Fatalf("seed %d, step %d: a kill leaves\n%sof\n%s", seed, step, got, now)
			}
			if kept.Used() != m.Used() || killed.Used() != m.Used() {
				t.Fatalf("seed %d, step %d: %d bytes used, %d after a crash, %d after a kill", seed, step, m.Used(),
					kept.Used(), killed.Used())
			}
			tree(t, killed, "/", true)
			if got := tree(t, killed.Crash(LoseAll()), "/", false); got != now {
				t.Fatalf("seed %d, step %d: everything was synced, a crash leaves\n%sof\n%s", seed, step, got, now)
			}
		}
	}
}

// A synced file whose name is synced, and that nobody touches, survives whatever happens around it.
func TestACrashLosesNothingThatWasSynced(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := NewMem(MemOptions{SectorSize: 8, Garbage: true, StaleReserved: seed%2 == 0})
		must(t, create(t, m, "safe", "0123456789").Close())
		tree(t, m, "/", true)
		for range 40 {
			shuffle(m, r)
			after := m.Crash(Random(r.Uint64()))
			if got := content(t, after, "safe"); got != "0123456789" {
				t.Fatalf("seed %d: %q", seed, got)
			}
			if r.IntN(10) == 0 {
				m = after // and again from there
			}
		}
	}
}
