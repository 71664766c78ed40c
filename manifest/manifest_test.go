package manifest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ptr[T any](v T) *T { return &v }

const (
	testRun    = "20261123T200248.123456789Z-1a2b3c4d"
	testParent = "20261122T070000.000000001Z-00000007"
)

// full has a different value in every field.
func full() Manifest {
	return Manifest{
		Identity: Identity{
			Run: testRun, Parent: testParent, Instance: "desk-1.eu_x", Build: "v1.2.3 <a&b>", SchemaVersion: "7",
			ConfigHash: "c0ffee",
			Components: []Component{
				{Kind: "strategy", ID: "mm-1", ConfigHash: "aa"},
				{Kind: "adapter", ID: "venue-x", ConfigHash: "bb"},
				{Kind: "risk", ID: "limits", ConfigHash: ""},
			},
			Labels:  map[string]string{"zone": "b", "desk": "crypto", "größe": "7 \"x\"\n"},
			Seed:    ptr(uint64(math.MaxUint64)),
			Started: 1795464168123456789, Origin: OriginEngine,
		},
		Kinds:        []KeyKind{{16, "position_id"}, {18, "Strategie"}},
		Status:       CrashedRecovered,
		Ended:        ptr(int64(1795464168999999999)),
		LastSeq:      99,
		Segments:     3,
		Digest:       strings.Repeat("0123456789abcdef", 4),
		DroppedBytes: 4711,
		Halt: &Halt{
			Reason: ReasonStall, Message: "queue full for 251 ms", Time: 1795464168888888888, Accepted: 120, Durable: 98,
			Stage: StageQueue, StalledNs: 251_000_000, ThresholdNs: 250_000_000,
		},
		Skipped:      []Skipped{{Run: "20261121T000000.000000000Z-00000001", Reason: "00000002.seg: offset 8192: seq 11 to 20: digest"}},
		FloorSegment: 2, Floor: 5,
		BaseDigest: strings.Repeat("f", 64),
		BaseEnded:  ptr(int64(1795464168222222222)),
		Signature:  "ed25519:xyz",
	}
}

func small() Manifest {
	return Manifest{
		Identity: Identity{Run: testRun, Instance: "a", Started: 1, Origin: OriginImport},
		Status:   Running,
	}
}

func mustEncode(t testing.TB, m Manifest) []byte {
	t.Helper()
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStatusSealed(t *testing.T) { // MF1
	for s, want := range map[Status]bool{Running: false, Ended: true, CrashedRecovered: true, Quarantined: true, "": false, "ended": false} {
		if s.Sealed() != want {
			t.Errorf("%q.Sealed() = %v", s, !want)
		}
		if (s.Validate() == nil) != (s != "" && s != "ended") {
			t.Errorf("%q.Validate() = %v", s, s.Validate())
		}
	}
}

func TestManifestRoundTrip(t *testing.T) { // EH11, EH12, EH13
	ended := full()
	ended.Status, ended.Halt = Ended, nil
	for name, m := range map[string]Manifest{"full": full(), "small": small(), "ended": ended} {
		b := mustEncode(t, m)
		if !bytes.Equal(b, mustEncode(t, m)) {
			t.Errorf("%s: encoding is not deterministic", name)
		}
		got, err := Decode("p", b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	b := mustEncode(t, small())
	for _, absent := range []string{"ended", "seed", "labels", "components", "halt", "skipped", "digest", "last_seq", "kinds"} {
		if bytes.Contains(b, []byte(`"`+absent+`"`)) {
			t.Errorf("%s is there although it is unset:\n%s", absent, b)
		}
	}
}

func TestEndZeroIsNotAbsent(t *testing.T) {
	m := small()
	m.Status, m.Ended = Ended, ptr(int64(0))
	m.Seed = ptr(uint64(0))
	got, err := Decode("p", mustEncode(t, m))
	if err != nil || got.Ended == nil || *got.Ended != 0 || got.Seed == nil || *got.Seed != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEmptyAndNilAreTheSame(t *testing.T) {
	m := small()
	m.Components, m.Labels, m.Kinds, m.Skipped = []Component{}, map[string]string{}, []KeyKind{}, []Skipped{}
	got, err := Decode("p", mustEncode(t, m))
	if err != nil || !reflect.DeepEqual(got, small()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Each option lands in the field of its own name (MF2): every string leaf gets its own path as value.
func TestFieldsAreNotSwapped(t *testing.T) {
	text := string(mustEncode(t, full()))
	for name, want := range map[string]string{
		"run": `"` + testRun + `"`, "parent": `"` + testParent + `"`, "instance": `"desk-1.eu_x"`, "build": `"v1.2.3 <a&b>"`,
		"schema_version": `"7"`, "config_hash": `"c0ffee"`, "seed": "18446744073709551615", "started": "1795464168123456789",
		"origin": `"engine"`, "status": `"CrashedRecovered"`, "ended": "1795464168999999999", "last_seq": "99", "segments": "3",
		"digest": `"` + strings.Repeat("0123456789abcdef", 4) + `"`, "dropped_bytes": "4711", "floor": "5",
		"base_digest": `"` + strings.Repeat("f", 64) + `"`, "signature": `"ed25519:xyz"`,
	} {
		if !regexp.MustCompile(`(?m)^  "` + name + `": ` + regexp.QuoteMeta(want) + `,?$`).MatchString(text) {
			t.Errorf("no line %q: %s in\n%s", name, want, text)
		}
	}
	for _, line := range []string{
		`      "kind": "adapter",` + "\n" + `      "id": "venue-x",` + "\n" + `      "config_hash": "bb"`,
		`    "reason": "stall",`, `    "message": "queue full for 251 ms",`, `    "time": 1795464168888888888,`, `    "accepted": 120,`,
		`    "durable": 98,`, `    "stage": "queue",`, `    "stalled_ns": 251000000,`, `    "threshold_ns": 250000000`,
		`      "id": 16,` + "\n" + `      "name": "position_id"`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the bytes have changed (version must be raised?), got\n%s\nwant\n%s", path, got, want)
	}
}

func TestGolden(t *testing.T) {
	golden(t, "manifest-v1.golden", mustEncode(t, full()))
	q, err := EncodeQuarantine(testQuarantine)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "quarantine-v1.golden", q)
	id, err := EncodeIdentity(full().Identity)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "identity-v1.golden", id)
	h, err := EncodeHalt(*full().Halt)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "halt-v1.golden", h)
}

// The page's tables name exactly the fields that the file has.
func TestFieldsAreThoseOfTheFormatPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "format", "manifest.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+`) \\|").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(row[1], "manifest") {
			continue
		}
		for _, f := range strings.Split(row[1], ", ") {
			documented = append(documented, strings.Trim(f, "`"))
		}
	}
	var coded []string
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.Anonymous {
				walk(f.Type)
			} else {
				coded = append(coded, strings.TrimSuffix(f.Tag.Get("json"), ",omitempty"))
			}
		}
	}
	walk(reflect.TypeFor[Manifest]())
	if !slices.Equal(documented, coded) {
		t.Errorf("documented %q\ncoded      %q", documented, coded)
	}
	for _, limit := range []int{MaxIdentity, MaxLabels, MaxComponents, MaxText, MaxLabelValue, MaxKind, MaxInstance, MaxReason, runIDLen} {
		if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, limit)).Match(page) {
			t.Errorf("the page does not mention the limit %d", limit)
		}
	}
}

func TestEveryBitFlipIsCorrupt(t *testing.T) {
	q, err := EncodeQuarantine(testQuarantine)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"manifest":   {mustEncode(t, small()), func(b []byte) error { _, err := Decode("p", b); return err }},
		"full":       {mustEncode(t, full()), func(b []byte) error { _, err := Decode("p", b); return err }},
		"quarantine": {q, func(b []byte) error { _, err := DecodeQuarantine("p", b); return err }},
	} {
		if err := c.decode(c.b); err != nil {
			t.Fatal(err)
		}
		for i := range c.b {
			for bit := range 8 {
				d := bytes.Clone(c.b)
				d[i] ^= 1 << bit
				checkDamage(t, fmt.Sprintf("%s: bit %d of byte %d", name, bit, i), c.decode(d))
			}
			checkDamage(t, fmt.Sprintf("%s: cut to %d bytes", name, i), c.decode(c.b[:i]))
		}
		checkDamage(t, name+": a byte more", c.decode(append(bytes.Clone(c.b), '\n')))
	}
}

func checkDamage(t *testing.T, what string, err error) {
	t.Helper()
	var located *format.Error
	if !errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrVersion) || !errors.As(err, &located) || located.Path != "p" || located.Offset < 0 {
		t.Errorf("%s: %v", what, err)
	}
}

func TestNewerVersionIsItsOwnError(t *testing.T) {
	for _, v := range []int{2, 17, 99999} {
		b := seal(magicManifest, v, []byte("anything at all"))
		if _, err := Decode("p", b); !errors.Is(err, format.ErrVersion) || errors.Is(err, format.ErrCorrupt) {
			t.Errorf("version %d: %v", v, err)
		}
		b[len(b)-1] ^= 1
		if _, err := Decode("p", b); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("damaged version %d: %v", v, err)
		}
		if _, err := DecodeQuarantine("p", seal(magicQuarantine, v, nil)); !errors.Is(err, format.ErrVersion) {
			t.Errorf("quarantine version %d: %v", v, err)
		}
	}
	for _, v := range []int{0, 100000, 1000000} { // not a version number of any version
		if _, err := Decode("p", seal(magicManifest, v, nil)); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("version %d: %v", v, err)
		}
	}
}

func TestOtherKindIsItsOwnError(t *testing.T) {
	q, _ := EncodeQuarantine(testQuarantine)
	for _, b := range [][]byte{q, []byte("runlogSG\x01"), []byte("runlogIX"), []byte("runlogFL"), []byte("runlogSZ")} {
		if _, err := Decode("p", b); !errors.Is(err, format.ErrWrongKind) {
			t.Errorf("%.20q: %v", b, err)
		}
	}
	if _, err := DecodeQuarantine("p", mustEncode(t, small())); !errors.Is(err, format.ErrWrongKind) {
		t.Error(err)
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	body := fmt.Sprintf(`{"run":%q,"instance":"a","started":1,"origin":"import","status":"Running","color":{"deep":[1,2]}}`+"\n", testRun)
	got, err := Decode("p", seal(magicManifest, 1, []byte(body)))
	if err != nil || !reflect.DeepEqual(got, small()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A valid checksum over content that no writer makes.
func TestImpossibleContentIsCorrupt(t *testing.T) {
	for _, body := range []string{
		"", "\n", "null\n", "{}\n", "[]\n", `{"run":7}`, `{"run":`, "{}{}\n",
		fmt.Sprintf(`{"run":%q,"instance":"a","origin":"import","status":"Running","build":"`+"\xff"+`"}`, testRun),
		fmt.Sprintf(`{"run":%q,"instance":"a","origin":"import","status":"Running","last_seq":-1}`, testRun),
		fmt.Sprintf(`{"run":%q,"instance":"a","origin":"import","status":"Sleeping"}`, testRun),
		fmt.Sprintf(`{"run":%q,"instance":"a","origin":"import","status":"Quarantined"}`, testRun),
	} {
		_, err := Decode("p", seal(magicManifest, 1, []byte(body)))
		checkDamage(t, body, err)
	}
	// The same with a first line that does not end in a newline.
	b, line := mustEncode(t, small()), []byte(magicManifest+" 1 ")
	rest := append([]byte{' '}, b[len(line)+sumDigits+1:]...)
	_, err := Decode("p", slices.Concat(line, fmt.Appendf(nil, "%016x", checksum(line, rest)), rest))
	checkDamage(t, "no newline", err)
	_, err = DecodeQuarantine("p", seal(magicQuarantine, 1, []byte(`{"offset":"x"}`)))
	checkDamage(t, "quarantine", err)
}

func TestLimitsNameTheOption(t *testing.T) {
	for _, c := range []struct {
		option string
		change func(*Manifest)
	}{
		{"Run", func(m *Manifest) { m.Run = "run-1" }},
		{"Parent", func(m *Manifest) { m.Parent = "x" }},
		{"Instance", func(m *Manifest) { m.Instance = "" }},
		{"Instance", func(m *Manifest) { m.Instance = "a/b" }},
		{"Build", func(m *Manifest) { m.Build = strings.Repeat("x", MaxText+1) }},
		{"Build", func(m *Manifest) { m.Build = "\xff" }},
		{"SchemaVersion", func(m *Manifest) { m.SchemaVersion = strings.Repeat("x", MaxText+1) }},
		{"ConfigHash", func(m *Manifest) { m.ConfigHash = "a\xc3" }},
		{"Components", func(m *Manifest) { m.Components = make([]Component, MaxComponents+1) }},
		{"Components[1].Kind", func(m *Manifest) { m.Components = []Component{{"a", "b", ""}, {"", "b", ""}} }},
		{"Components[0].ID", func(m *Manifest) { m.Components = []Component{{"a", "", ""}} }},
		{"Components[0].ConfigHash", func(m *Manifest) { m.Components = []Component{{"a", "b", "\xff"}} }},
		{"Labels", func(m *Manifest) {
			m.Labels = map[string]string{}
			for i := range MaxLabels + 1 {
				m.Labels[fmt.Sprint(i)] = ""
			}
		}},
		{"Labels", func(m *Manifest) { m.Labels = map[string]string{"": "v"} }},
		{`Labels["k"]`, func(m *Manifest) { m.Labels = map[string]string{"k": strings.Repeat("x", MaxLabelValue+1)} }},
		{"Labels: the run's identity", func(m *Manifest) { // within each limit, but not in sum
			m.Labels = map[string]string{}
			for i := range 200 {
				m.Labels[fmt.Sprint(i)] = strings.Repeat("x", MaxLabelValue)
			}
		}},
		{"Components: the run's identity", func(m *Manifest) {
			for range MaxComponents {
				m.Components = append(m.Components, Component{"k", strings.Repeat("\x01", MaxText), ""})
			}
		}},
		{"Origin", func(m *Manifest) { m.Origin = "" }},
		{"status", func(m *Manifest) { m.Status = "" }},
		{"Status", func(m *Manifest) { m.Status = Quarantined }},
		{"Status", func(m *Manifest) { m.Ended = ptr(int64(1)) }},
		{"Status", func(m *Manifest) { m.Digest = strings.Repeat("a", 64) }},
		{"Digest", func(m *Manifest) { m.Status, m.Digest = Ended, strings.Repeat("A", 64) }},
		{"BaseDigest", func(m *Manifest) { m.BaseDigest = "ab" }},
		{"FloorSegment", func(m *Manifest) { m.Floor = 5 }},
		{"FloorSegment", func(m *Manifest) { m.BaseEnded = ptr(int64(1)) }},
		{"FloorSegment", func(m *Manifest) { m.FloorSegment, m.Floor = 2, 5 }},
		{"FloorSegment", func(m *Manifest) { m.FloorSegment, m.BaseDigest = 2, strings.Repeat("a", 64) }},
		{"FloorSegment 1", func(m *Manifest) { m.FloorSegment, m.Floor, m.BaseDigest = 1, 5, strings.Repeat("a", 64) }},
		{"FloorSegment 3", func(m *Manifest) {
			*m = full()
			m.Segments = 2
			m.FloorSegment = 3
		}},
		{"Floor 5", func(m *Manifest) {
			*m = full()
			m.LastSeq = 4
		}},
		{"Signature", func(m *Manifest) { m.Signature = "\xff" }},
		{"Kinds", func(m *Manifest) { m.Kinds = make([]KeyKind, entry.MaxKinds+1) }},
		{"Kinds[0].Name", func(m *Manifest) { m.Kinds = []KeyKind{{16, ""}} }},
		{"Kinds[0].Name", func(m *Manifest) { m.Kinds = []KeyKind{{16, "client_order_id"}} }},
		{"Kinds[1].Name", func(m *Manifest) { m.Kinds = []KeyKind{{16, "a"}, {17, "a"}} }},
		{"Kinds[0].ID", func(m *Manifest) { m.Kinds = []KeyKind{{15, "a"}} }},
		{"Kinds[1].ID", func(m *Manifest) { m.Kinds = []KeyKind{{16, "a"}, {16, "b"}} }},
		{"DroppedBytes", func(m *Manifest) { m.DroppedBytes = -1 }},
		{"Halt.Reason", func(m *Manifest) { m.Halt = &Halt{Reason: "tired"} }},
		{"Halt.Stage", func(m *Manifest) { m.Halt = &Halt{Reason: ReasonStall, Stage: "left"} }},
		{"Skipped[0].Run", func(m *Manifest) { m.Skipped = []Skipped{{"", "x"}} }},
		{"Skipped: ", func(m *Manifest) {
			m.Skipped = slices.Repeat([]Skipped{{"r", strings.Repeat("x", MaxReason)}}, MaxSize/MaxReason)
		}},
	} {
		m := small()
		c.change(&m)
		if _, err := Encode(m); !errors.Is(err, format.ErrInvalid) || !strings.Contains(err.Error(), c.option) {
			t.Errorf("%s: %v", c.option, err)
		}
	}
}

func TestLimitsCanBeReached(t *testing.T) {
	m := small()
	m.Instance, m.Build = strings.Repeat("i", MaxInstance), strings.Repeat("b", MaxText)
	m.Labels = map[string]string{strings.Repeat("k", MaxText): strings.Repeat("v", MaxLabelValue)}
	for i := range MaxComponents {
		m.Components = append(m.Components, Component{strings.Repeat("k", MaxKind), fmt.Sprintf("%0*d", MaxText, i), ""})
	}
	m.Skipped = slices.Repeat([]Skipped{{testParent, strings.Repeat("x", MaxReason)}}, 10_000)
	got, err := Decode("p", mustEncode(t, m))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Error(err)
	}
}

func TestProseIsCutNotRefused(t *testing.T) {
	long := strings.Repeat("ä", MaxReason)
	m := small()
	m.Halt = &Halt{Reason: ReasonIO, Message: "x" + long}
	m.Skipped = []Skipped{{"folder\xff", "bad\xff" + long}}
	got, err := Decode("p", mustEncode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{got.Halt.Message, got.Skipped[0].Reason} {
		if len(s) > MaxReason || len(s) < MaxReason-4 || !strings.HasSuffix(s, "ä...") {
			t.Errorf("%d bytes: ...%q", len(s), s[len(s)-20:])
		}
	}
	if m.Halt.Message != "x"+long || m.Skipped[0].Run != "folder\xff" {
		t.Error("Encode changed its argument")
	}
	if got.Skipped[0].Run != "folder\uFFFD" {
		t.Errorf("%q", got.Skipped[0].Run)
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	for _, id := range []Identity{full().Identity, small().Identity} {
		b, err := EncodeIdentity(id)
		if err != nil || bytes.ContainsRune(b, '\n') {
			t.Fatalf("%q, %v", b, err)
		}
		got, err := DecodeIdentity("p", 64, b)
		if err != nil || !reflect.DeepEqual(got, id) {
			t.Errorf("got %+v, %v", got, err)
		}
		for i := range b {
			_, err := DecodeIdentity("p", 64, b[:i])
			checkDamage(t, fmt.Sprint("cut to ", i), err)
			var at *format.Error
			if errors.As(err, &at) && (at.Offset < 64 || at.Offset > 64+int64(len(b))) {
				t.Errorf("cut to %d: offset %d", i, at.Offset)
			}
		}
	}
	_, err := DecodeIdentity("p", 64, []byte(`{"run":"x"}`))
	checkDamage(t, "bad run", err)
	if _, err := EncodeIdentity(Identity{}); !errors.Is(err, format.ErrInvalid) {
		t.Error(err)
	}
}

func TestHaltRoundTrip(t *testing.T) {
	for _, h := range []Halt{*full().Halt, {Reason: ReasonDiskFull}, {Reason: ReasonCorrupt, Accepted: math.MaxUint64, Time: math.MinInt64}} {
		b, err := EncodeHalt(h)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeHalt("p", 16, b); err != nil || got != h {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if _, err := EncodeHalt(Halt{}); !errors.Is(err, format.ErrInvalid) {
		t.Error(err)
	}
	for _, bad := range []string{"", "{}", `{"reason":"io"`, `{"reason":"io","stage":"x"}`} {
		_, err := DecodeHalt("p", 16, []byte(bad))
		checkDamage(t, bad, err)
	}
	worst := Halt{
		Reason: ReasonDiskFull, Message: strings.Repeat("\x01", 2*MaxReason), Time: math.MinInt64, Accepted: math.MaxUint64,
		Durable: math.MaxUint64, Stage: StageCommit, StalledNs: math.MinInt64, ThresholdNs: math.MinInt64,
	}
	if b, err := EncodeHalt(worst); err != nil || len(b) > MaxHalt {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestHolder(t *testing.T) {
	h := Holder{PID: 4242, Host: "trade-7", Since: 1795464168123456789}
	b := EncodeHolder(h)
	if got, ok := DecodeHolder(b); !ok || got != h {
		t.Errorf("got %+v, %v", got, ok)
	}
	if got, ok := DecodeHolder(append(b, `{"pid":9 stale`...)); !ok || got != h {
		t.Errorf("with stale bytes behind: %+v, %v", got, ok)
	}
	if got := h.String(); got != "pid 4242 on trade-7 since 2026-11-23T20:02:48Z" {
		t.Error(got)
	}
	for i := range len(b) - 1 {
		if got, ok := DecodeHolder(b[:i]); ok && got != h {
			t.Errorf("cut to %d: %+v", i, got)
		}
	}
	for _, bad := range []string{"", "null", "{}", "77", "\xff\xfe", `{"pid":"x"}`} {
		if got, ok := DecodeHolder([]byte(bad)); ok || got.String() != "an unknown process" {
			t.Errorf("%q: %v", bad, got)
		}
	}
	if got := (Holder{Host: "a\x1b[31m"}).String(); strings.ContainsRune(got, 0x1b) || !strings.HasPrefix(got, "a process on a") {
		t.Errorf("%q", got)
	}
}
