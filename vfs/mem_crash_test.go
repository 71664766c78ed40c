package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func newMem() *Mem { return NewMem(MemOptions{}) }

// durable creates a file whose name and content survive everything.
func durable(t testing.TB, m *Mem, name, content string) File {
	t.Helper()
	f := create(t, m, name, content)
	must(t, f.Datasync())
	must(t, m.SyncDir("/"))
	return f
}

// outcomes walks all crash states and returns what describe says of them, sorted, each once.
func outcomes(m *Mem, describe func(*Mem) string) []string {
	seen := map[string]bool{}
	for _, after := range m.EachCrash() {
		seen[describe(after)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func wantOutcomes(t *testing.T, m *Mem, describe func(*Mem) string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := outcomes(m, describe); !slices.Equal(got, want) {
		t.Errorf("a crash leaves %q, want %q", got, want)
	}
}

// files describes the content of some files.
func files(t *testing.T, names ...string) func(*Mem) string {
	return func(m *Mem) string {
		var s []string
		for _, name := range names {
			s = append(s, content(t, m, name))
		}
		return strings.Join(s, " ")
	}
}

func sectorOf(c byte) string { return strings.Repeat(string(c), 512) }

// letters describes a file by the first byte of each sector; a sector that is not one letter throughout is "?".
func letters(t *testing.T, name string) func(*Mem) string {
	return func(m *Mem) string {
		var s strings.Builder
		for part := range slices.Chunk([]byte(content(t, m, name)), 512) {
			switch {
			case bytes.Count(part, part[:1]) != len(part):
				s.WriteByte('?')
			case part[0] == 0:
				s.WriteByte('0')
			default:
				s.WriteByte(part[0])
			}
		}
		return s.String()
	}
}

func TestSyncedDataSurvivesEveryCrash(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", "safe")
	wantOutcomes(t, m, files(t, "a"), "safe")
	write(t, f, "lost", 0)
	wantOutcomes(t, m, files(t, "a"), "lost", "safe")
	must(t, f.Datasync())
	wantOutcomes(t, m, files(t, "a"), "lost")
}

func TestUnsyncedSectorsSurviveInEveryCombinationAndVersion(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	write(t, f, sectorOf('c')+sectorOf('d'), 0)
	write(t, f, sectorOf('e'), 0)
	wantOutcomes(t, m, letters(t, "a"), "ab", "ad", "cb", "cd", "eb", "ed")
	states := 0
	for path, after := range m.EachCrash() {
		states++
		if again := m.Crash(Replay(path)); content(t, again, "a") != content(t, after, "a") {
			t.Errorf("Replay(%v) leads elsewhere", path)
		}
	}
	if states != 6 || len(m.Choices()) != 2 {
		t.Errorf("%d states, choices %v", states, m.Choices())
	}
	for range m.EachCrash() {
		break // stopping early is allowed
	}
}

func TestSectorsOfAnySizeAreWholeOrAbsent(t *testing.T) {
	for _, c := range []struct{ sector, states int }{{512, 1 << 8}, {4096, 2}, {3000, 2}, {0, 1 << 8}} {
		m := NewMem(MemOptions{SectorSize: c.sector})
		f := durable(t, m, "a", strings.Repeat("a", 4096))
		write(t, f, strings.Repeat("b", 4096), 0)
		n := 0
		for range m.EachCrash() {
			n++
		}
		if n != c.states {
			t.Errorf("sectors of %d bytes: %d states, want %d", c.sector, n, c.states)
		}
	}
}

func TestSizesAreLostAndKeptLikeData(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", "")
	write(t, f, "aa", 0)
	write(t, f, "bb", 2)
	wantOutcomes(t, m, files(t, "a"), "", "\x00\x00", "aa", "\x00\x00\x00\x00", "aa\x00\x00", "aabb")
	must(t, f.Datasync())
	must(t, f.Truncate(6))
	wantOutcomes(t, m, files(t, "a"), "aabb", "aabb\x00\x00")
}

func TestCuttingAFileIsAtomic(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b')+sectorOf('c'))
	must(t, f.Truncate(512))
	wantOutcomes(t, m, letters(t, "a"), "a", "abc")
	must(t, f.Truncate(1536))
	wantOutcomes(t, m, letters(t, "a"), "a", "abc", "a00")
	write(t, f, sectorOf('d'), 512)
	wantOutcomes(t, m, letters(t, "a"), "a", "abc", "a00", "ad0")
	must(t, f.Datasync())
	wantOutcomes(t, m, letters(t, "a"), "ad0")

	write(t, f, sectorOf('x'), 512)
	must(t, f.Truncate(700))
	must(t, f.Truncate(1024))
	pad, d, x := string(make([]byte, 324)), sectorOf('d'), sectorOf('x')
	wantOutcomes(t, m, files(t, "a"), sectorOf('a')+d+string(make([]byte, 512)), sectorOf('a')+x+string(make([]byte, 512)),
		sectorOf('a')+d[:188], sectorOf('a')+x[:188], sectorOf('a')+d[:188]+pad, sectorOf('a')+x[:188]+pad)
}

func TestNamesWaitForSyncDir(t *testing.T) {
	m := newMem()
	f := create(t, m, "a", "A")
	must(t, f.Datasync())
	wantOutcomes(t, m, files(t, "a"), "A", "absent")
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "a"), "A")
	must(t, m.Remove("a"))
	wantOutcomes(t, m, files(t, "a"), "A", "absent")
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "a"), "absent")
	must(t, create(t, m, "b", "").Close())
	must(t, m.Remove("b"))
	wantOutcomes(t, m, files(t, "b"), "", "absent")
	must(t, m.SyncDir("/"))
	if c := m.Choices(); len(c) != 0 {
		t.Errorf("a file that came and went leaves choices: %v", c)
	}
}

func TestARenameLeavesTheOldOrTheNewFile(t *testing.T) {
	m := newMem()
	durable(t, m, "target", "old")
	durable(t, m, "tmp", "new")
	must(t, m.Rename("tmp", "target"))
	wantOutcomes(t, m, files(t, "target", "tmp"), "old new", "new absent")
	if got := files(t, "target", "tmp")(m.Crash(KeepAll())); got != "new absent" {
		t.Errorf("KeepAll: %s", got)
	}
	if got := files(t, "target", "tmp")(m.Crash(LoseAll())); got != "old new" {
		t.Errorf("LoseAll: %s", got)
	}
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "target", "tmp"), "new absent")
}

func TestARenamedFileThatIsRemovedDoesNotBringTheOldOneBack(t *testing.T) {
	for _, sync := range []bool{false, true} {
		m := newMem()
		durable(t, m, "target", "old")
		durable(t, m, "tmp", "new")
		must(t, m.Rename("tmp", "target"))
		must(t, m.Remove("target"))
		want := []string{"old new", "new absent", "absent absent"}
		if sync {
			must(t, m.SyncDir("/"))
			want = want[2:]
		}
		wantOutcomes(t, m, files(t, "target", "tmp"), want...)
		if got := files(t, "target", "tmp")(m.Crash(KeepAll())); got != "absent absent" {
			t.Errorf("KeepAll: %s", got)
		}
	}
}

func TestAReplacementOfAnUnsyncedFileCountsByOrder(t *testing.T) {
	m := newMem()
	must(t, create(t, m, "tmp", "").Close())
	must(t, m.Rename("tmp", "x"))
	f := create(t, m, "tmp", "2")
	must(t, f.Datasync())
	must(t, m.Rename("tmp", "x"))
	wantOutcomes(t, m, files(t, "x", "tmp"), "absent absent", "absent ", " absent", "absent 2", " 2", "2 absent")
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "x", "tmp"), "2 absent")
}

func TestAReplacedFileStaysGoneWhenItsSuccessorMovesOn(t *testing.T) {
	m := newMem()
	must(t, m.MkdirAll("d"))
	durable(t, m, "x", "X")
	must(t, create(t, m, "d/b", "").Close())
	must(t, m.Rename("x", "d/b"))
	must(t, m.Rename("d/b", "y"))
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "d/b", "y"), "absent X")
	must(t, m.SyncDir("d"))
	wantOutcomes(t, m, files(t, "d/b", "y"), "absent X")
}

func TestARenameAcrossFoldersIsDurableWithEither(t *testing.T) {
	for _, dir := range []string{"from", "to"} {
		m := newMem()
		must(t, m.MkdirAll("from"))
		must(t, m.MkdirAll("to"))
		f := create(t, m, "from/a", "A")
		must(t, f.Datasync())
		must(t, m.SyncDir("from"))
		must(t, m.Rename("from/a", "to/b"))
		wantOutcomes(t, m, files(t, "from/a", "to/b"), "A absent", "absent A")
		must(t, m.SyncDir(dir))
		wantOutcomes(t, m, files(t, "from/a", "to/b"), "absent A")
	}
}

func TestALostFolderTakesItsFilesAlong(t *testing.T) {
	m := newMem()
	in := m.Inject(Rule{Kind: OpSyncDir, Err: syscall.EIO})
	wantErr(t, m.MkdirAll("d"), syscall.EIO, "")
	f := create(t, m, "d/a", "A")
	must(t, f.Datasync())
	must(t, m.SyncDir("d"))
	wantOutcomes(t, m, files(t, "d/a"), "A", "absent")
	if in.Hits() != 1 {
		t.Errorf("rule hit %d times", in.Hits())
	}
	must(t, m.SyncDir("/"))
	wantOutcomes(t, m, files(t, "d/a"), "A")
}

func TestWriteFileAtomicIsAtomicAtEveryOperation(t *testing.T) {
	m := newMem()
	must(t, WriteFileAtomic(m, "/", "f", []byte("old")))
	points := 0
	m.SetHook(func(Op) error {
		points++
		for path, after := range m.EachCrash() {
			if got := content(t, after, "f"); got != "old" && got != "new" {
				t.Errorf("point %d, state %v: %q", points, path, got)
			}
		}
		return nil
	})
	must(t, WriteFileAtomic(m, "/", "f", []byte("new")))
	m.SetHook(nil)
	wantOutcomes(t, m, files(t, "f"), "new")
	if points < 6 {
		t.Errorf("only %d crash points", points)
	}
}

func TestTheOldWorldGoesOnAfterACrash(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", "one")
	after := m.Crash(LoseAll())
	write(t, f, "two", 0)
	must(t, f.Datasync())
	if got := content(t, after, "a"); got != "one" {
		t.Errorf("the new world sees %q", got)
	}
	g, err := after.Open("a")
	must(t, err)
	write(t, g, "six", 0)
	if got := content(t, m, "a"); got != "two" {
		t.Errorf("the old world sees %q", got)
	}
}

func TestAKilledProcessLeavesThePageCacheAndNoLock(t *testing.T) {
	m := NewMem(MemOptions{Capacity: 1 << 20})
	must(t, m.MkdirAll("d"))
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	durable(t, m, "gone", "removed, still open")
	must(t, m.Remove("gone"))
	_, err := m.Lock("d/LOCK", []byte("me"))
	must(t, err)
	write(t, f, sectorOf('x'), 0)
	m.Inject(Rule{Kind: OpDatasync, Err: syscall.EIO})
	wantErr(t, f.Datasync(), syscall.EIO, "a")
	write(t, f, sectorOf('y'), 512)
	must(t, m.Rename("a", "b"))

	after := m.Kill()
	if got := letters(t, "b")(after); got != "xy" {
		t.Errorf("the page cache holds %s", got)
	}
	describe := func(m *Mem) string {
		return letters(t, "a")(m) + letters(t, "b")(m) + " " + content(t, m, "gone")
	}
	wantOutcomes(t, after, func(m *Mem) string {
		if content(t, m, "b") == "absent" {
			return letters(t, "a")(m)
		}
		return letters(t, "b")(m)
	}, "ab", "ay")
	if a, b := outcomes(m, describe), outcomes(after, describe); !slices.Equal(a, b) {
		t.Errorf("the clone can crash to %q, the original to %q", b, a)
	}
	if _, held, _ := after.LockHolder("d/LOCK"); held {
		t.Error("the lock outlived its process")
	}
	if got, want := after.Used(), m.Used()-512; got != want {
		t.Errorf("the clone uses %d bytes, want %d: the removed file is no longer open", got, want)
	}
	g, err := after.Open("b")
	must(t, err)
	must(t, g.Datasync())
	must(t, after.SyncDir("/"))
	wantOutcomes(t, after, letters(t, "b"), "ay")
	write(t, f, sectorOf('z'), 0)
	if got := letters(t, "b")(after); got != "xy" {
		t.Errorf("the clone shares the original's writes: %s", got)
	}
}

func TestGarbageNeverTouchesDurableData(t *testing.T) {
	m := NewMem(MemOptions{Garbage: true})
	f := durable(t, m, "a", sectorOf('a')+string(make([]byte, 512)))
	write(t, f, sectorOf('b')+sectorOf('c')+sectorOf('d'), 0)
	seen := map[string]bool{}
	for _, after := range m.EachCrash() {
		seen[letters(t, "a")(after)] = true
	}
	for s := range seen {
		if s[0] != 'a' && s[0] != 'b' {
			t.Errorf("durable data became garbage: %s", s)
		}
	}
	spoiled := letters(t, "a")(m.Crash(Scramble()))
	if !seen["ac"] || !seen["b0"] || !seen["bcd"] || !seen["ac0"] || len(seen) != 2*3+2*3*3 {
		t.Errorf("states: %v", slices.Sorted(maps.Keys(seen)))
	}
	if spoiled[1] == '0' || spoiled[1] == 'c' {
		t.Errorf("Scramble left %s", spoiled)
	}
	must(t, f.Datasync())
	wantOutcomes(t, m, letters(t, "a"), "bcd")
}

func TestUnsyncedZerosCanBecomeGarbage(t *testing.T) {
	m := NewMem(MemOptions{Garbage: true})
	f := durable(t, m, "a", "")
	write(t, f, string(make([]byte, 100*512)), 0)
	write(t, f, sectorOf('x'), 512)
	after := content(t, m.Crash(func(c Choice) int { return max(c.Newest, c.Garbage) }), "a")
	if len(after) != 100*512 || isZero([]byte(after[:512])) || isZero([]byte(after[99*512:])) {
		t.Error("the ends of the zeros did not become garbage")
	}
	if !isZero([]byte(content(t, m.Crash(KeepAll()), "a")[1024:])) {
		t.Error("KeepAll made garbage")
	}
	must(t, f.Datasync())
	wantOutcomes(t, m, func(m *Mem) string { return letters(t, "a")(m)[:3] }, "0x0")
}

func TestReservedSpaceCanBecomeGarbageUntilItIsWritten(t *testing.T) {
	m := NewMem(MemOptions{StaleReserved: true})
	f := durable(t, m, "a", sectorOf('a'))
	must(t, f.Truncate(2*512)) // a hole
	must(t, f.Datasync())
	write(t, f, sectorOf('a'), 512)
	must(t, f.Datasync())
	must(t, f.Preallocate(6*512))
	must(t, f.Datasync())
	spoiled := func() string {
		for _, keep := range []Chooser{KeepAll(), LoseAll()} {
			if got := letters(t, "a")(m.Crash(keep)); strings.Contains(got, "?") {
				t.Errorf("%s without a choice for garbage", got)
			}
		}
		return letters(t, "a")(m.Kill().Crash(func(c Choice) int { return max(c.Newest, c.Garbage) }))
	}
	want := func(pattern string) {
		t.Helper()
		got := spoiled()
		for i := range pattern {
			if garbage := pattern[i] == '*'; garbage && got[i] == '0' || !garbage && pattern[i] != got[i] {
				t.Errorf("a crash leaves %s, want %s, * for noise or stale bytes", got, pattern)
			}
		}
	}
	want("aa****")
	write(t, f, sectorOf('b'), 2*512)
	if want("aa****"); spoiled()[2] == 'b' {
		t.Error("what a lost write leaves is not garbage")
	}
	must(t, f.Datasync())
	want("aab***")
	write(t, f, string(make([]byte, 512)), 3*512)
	must(t, f.Datasync())
	want("aab0**")
	write(t, f, sectorOf('c'), 5*512)
	must(t, f.Datasync())
	want("aab0*c")
	m = m.Crash(KeepAll())
	want("aab00c") // what nobody writes to stays what it is

	m = NewMem(MemOptions{StaleReserved: true})
	f = durable(t, m, "a", sectorOf('a'))
	must(t, f.Truncate(4*512))
	must(t, f.Datasync())
	want("a000") // holes are zeros
	must(t, f.Preallocate(4*512))
	write(t, f, sectorOf('x'), 3*512)
	write(t, f, string(make([]byte, 512)), 3*512)
	must(t, f.Datasync())
	want("a**0")
	must(t, f.Truncate(2*512))
	must(t, f.Datasync())
	want("a*")
	must(t, f.Truncate(4*512))
	must(t, f.Datasync())
	want("a*00") // what was cut off is reserved no longer
}

func TestTheSameSeedLeavesTheSameDisk(t *testing.T) {
	build := func() *Mem {
		m := NewMem(MemOptions{Garbage: true})
		r := rand.New(rand.NewPCG(3, 4))
		var open []File
		for i := range 5 {
			open = append(open, create(t, m, fmt.Sprint("f", i), ""))
		}
		for range 60 {
			p := bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(2000))
			write(t, open[r.IntN(5)], string(p), int64(r.IntN(8000)))
		}
		must(t, open[0].Truncate(700))
		must(t, m.Rename("f0", "f1"))
		return m
	}
	describe := func(m *Mem) string {
		var s strings.Builder
		list, err := m.ReadDir("/")
		must(t, err)
		for _, e := range list {
			fmt.Fprintf(&s, "%s=%q\n", e.Name(), content(t, m, e.Name()))
		}
		return s.String()
	}
	a, b, different := build(), build(), map[string]bool{}
	for seed := range uint64(50) {
		state := describe(a.Crash(Random(seed)))
		if again := describe(b.Crash(Random(seed))); again != state {
			t.Fatalf("seed %d leaves two states", seed)
		}
		different[state] = true
	}
	if len(different) < 25 {
		t.Errorf("50 seeds lead to only %d states", len(different))
	}
}

func TestChoicesNameThemselves(t *testing.T) {
	m := newMem()
	create(t, m, "a", "x")
	var got []string
	for _, c := range m.Choices() {
		got = append(got, c.String())
	}
	want := []string{"entry /a[0]: 2 outcomes", "size /a[0]: 2 outcomes", "sector /a[0]: 2 outcomes"}
	for i, s := range want {
		if i >= len(got) || strings.ReplaceAll(got[i], "/", "") != strings.ReplaceAll(s, "/", "") {
			t.Fatalf("choices are %q", got)
		}
	}
	if s := (Choice{Options: 2}); Chooser(func(Choice) int { return 7 }).pick(s) != 0 {
		t.Error("an outcome that does not exist was chosen")
	}
}

func TestTheRootStays(t *testing.T) {
	m := newMem()
	wantErr(t, m.Remove("/"), syscall.EBUSY, "")
	_, err := m.Create("/")
	wantErr(t, err, syscall.EBUSY, "")
	must(t, create(t, m, "a", "").Close())
	wantErr(t, m.Rename("a", "."), syscall.EBUSY, "")
	if fi, err := m.Stat("/"); err != nil || !fi.IsDir() || fi.Sys() != nil || !fi.ModTime().IsZero() {
		t.Errorf("root: %v, %v", fi, err)
	}
	var pe *fs.PathError
	if _, err := m.Stat("x"); !errors.As(err, &pe) || pe.Path != "x" {
		t.Errorf("%v", err)
	}
}

// TestCrashesOfAZeroFilledSegmentAreCheap bounds memory, not time: a zero-filled file must not cost its size.
func TestCrashesOfAZeroFilledSegmentAreCheap(t *testing.T) {
	m := newMem()
	f := create(t, m, "segment", "")
	chunk := make([]byte, 1<<20)
	for i := range 64 {
		if _, err := f.WriteAt(chunk, int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	must(t, f.Datasync())
	must(t, m.SyncDir("/"))
	write(t, f, "a few bytes", 0)
	if got := testing.AllocsPerRun(10, func() { m.Crash(KeepAll()) }); got > 50 {
		t.Errorf("a crash makes %v allocations", got)
	}
	if n := len(m.root.entries["segment"].file.sectors); n != 1 {
		t.Errorf("%d sectors stored", n)
	}
}

func BenchmarkCrash(b *testing.B) {
	m := newMem()
	f := durable(b, m, "a", strings.Repeat("x", 16<<10))
	write(b, f, strings.Repeat("y", 8<<10), 4<<10)
	for i := 0; b.Loop(); i++ {
		m.Crash(Random(uint64(i)))
	}
}
