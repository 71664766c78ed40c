package segment

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// pageTable returns the cells of the first table under a heading of a page in docs/format, header lines left out.
func pageTable(t *testing.T, page, heading string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "format", page))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", page, heading)
	}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" && len(rows) > 2 {
			break
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s: no table under %q", page, heading)
	}
	return rows[2:]
}

// field is where the code has a field; its size is up to the next one.
type field struct {
	name   string
	offset int
}

// compareFields checks offsets, sizes and names of a table, and that its fields leave no hole.
func compareFields(t *testing.T, page, heading string, fields []field, end int) {
	t.Helper()
	rows := pageTable(t, page, heading)
	if len(rows) != len(fields) {
		t.Errorf("%s: %d fields on the page, %d in the code", heading, len(rows), len(fields))
		return
	}
	for i, row := range rows {
		next := end
		if i+1 < len(fields) {
			next = fields[i+1].offset
		}
		want := []string{strconv.Itoa(fields[i].offset), strconv.Itoa(next - fields[i].offset), fields[i].name}
		if size := next - fields[i].offset; size < 0 { // up to the body's end
			want[1] = row[1]
			if _, err := strconv.Atoi(row[1]); err == nil {
				t.Errorf("%s: %s has a fixed size on the page", heading, row[2])
			}
		}
		if got := fmt.Sprint(row[:3]); got != fmt.Sprint(want) {
			t.Errorf("%s: %s on the page, %s in the code", heading, got, want)
		}
	}
}

func TestLayoutAgreesWithThePage(t *testing.T) {
	compareFields(t, "README.md", "### Prelude", []field{
		{"magic", 0}, {"version", 8}, {"flags", 10}, {"header_size", 12}, {"salt", 16}, {"header_sum", 24},
	}, format.PreludeSize)
	compareFields(t, "segment.md", "### Header fields", []field{
		{"number", hdrNumber}, {"identity_size", hdrIdentitySize}, {"planned_size", hdrPlannedSize}, {"created", hdrCreated},
		{"reserved", 56}, {"identity", hdrIdentity},
	}, 0)
	compareFields(t, "segment.md", "### Frame header", []field{{"word", 0}, {"check", 4}, {"sum", wordSize}, {"body", HeadSize}}, 0)
	compareFields(t, "segment.md", "### Start body", []field{
		{"prev_ordinal", stPrevOrdinal}, {"prev_seq", stPrevSeq}, {"prev_chain", stPrevChain}, {"base_time", stBaseTime},
		{"prev_salt", stPrevSalt}, {"flags", stFlags},
	}, startBody)
	compareFields(t, "segment.md", "### Commit body", []field{
		{"ordinal", cmOrdinal}, {"durable", cmDurable}, {"first_seq", cmFirstSeq}, {"last_seq", cmLastSeq},
		{"next_salt", cmNextSalt}, {"time", cmTime}, {"batch_start", cmBatchStart}, {"frames", cmFrames},
		{"flags", cmFlags}, {"digest", cmDigest}, {"chain", cmChain},
	}, commitBody)
	compareFields(t, "segment.md", "### Footer body", []field{
		{"entries", ftEntries}, {"first_seq", ftFirstSeq}, {"last_seq", ftLastSeq}, {"last_ordinal", ftLastOrdinal},
		{"chain", ftChain}, {"content_end", ftContentEnd}, {"min_init", ftMinInit}, {"max_init", ftMaxInit},
		{"min_publish", ftMinPublish}, {"max_publish", ftMaxPublish}, {"next_salt", ftNextSalt}, {"dropped", ftDropped},
		{"flags", ftFlags}, {"content_sha256", ftContentSHA}, {"run_sha256", ftRunSHA},
	}, footerBody)
}

func TestKindsAgreeWithThePage(t *testing.T) {
	want := map[string]string{
		"pad": "0x01", "start": "0x02", "route": "0x03", "key kind": "0x04", "commit": "0x05", "footer": "0x06", "halt": "0x07",
		"anchor": "0x08", "state hash": "0x09", "streams": "0x0a", "cursor": "0x0b", "marker": "0x0c", "marker gap": "0x0d",
		"entry": "0x80-0x8f",
	}
	code := map[string]int{
		"pad": KindPad, "start": KindStart, "route": KindRoute, "key kind": KindKeyKind, "commit": KindCommit, "footer": KindFooter,
		"halt": KindHalt, "anchor": int(KindAnchor), "state hash": int(KindStateHash), "streams": int(KindStreams), "cursor": int(KindCursor),
		"marker": int(KindMarker), "marker gap": int(KindMarkerGap), "entry": KindEntry,
	}
	rows := pageTable(t, "segment.md", "### Kinds")
	if len(rows) != len(code) {
		t.Errorf("%d kinds on the page, %d in the code", len(rows), len(code))
	}
	for _, row := range rows {
		name := row[1]
		if row[0] != want[name] || !strings.HasPrefix(row[0], fmt.Sprintf("0x%02x", code[name])) {
			t.Errorf("%s is %s on the page, %#x in the code", name, row[0], code[name])
		}
		f := Frame{Kind: uint8(code[name])}
		if hasSeq := row[2] == "yes"; hasSeq != f.IsEntry() {
			t.Errorf("%s: seq is %q on the page", name, row[2])
		}
	}
	for kind := range 256 { // "may be skipped" and "any other is ErrVersion"
		f := Frame{Kind: uint8(kind)}
		want := kind >= 1 && kind <= 0x0d || kind >= 0x40 && kind <= 0x7f
		if known(uint8(kind)) != want || f.IsEntry() != (kind >= 0x80 && kind <= 0x8f) {
			t.Errorf("kind %#x: known is %v, entry is %v", kind, known(uint8(kind)), f.IsEntry())
		}
	}
}

func TestPagesAgreeOnTheRest(t *testing.T) {
	parts := pageTable(t, "segment.md", "### Entry body")
	bits := map[string]uint8{"kind bit 0": entry.HasID, "kind bit 1": entry.HasCorrelation, "kind bit 2": entry.HasCausation,
		"kind bit 3": entry.HasKeys}
	for _, row := range parts {
		if n, ok := strings.CutPrefix(row[1], "kind bit "); ok {
			bit, err := strconv.Atoi(n)
			if err != nil || bits[row[1]] != 1<<bit {
				t.Errorf("%s: %s", row[1], row[2])
			}
			delete(bits, row[1])
		}
	}
	if len(bits) != 0 {
		t.Errorf("flags that the page does not have: %v", bits)
	}
	text := func(page string) string {
		b, err := os.ReadFile(filepath.Join("..", "docs", "format", page))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(b)), " ")
	}
	for page, claims := range map[string][]string{
		"README.md": {
			"`" + format.MagicSegment + "` segment", "`" + format.MagicIndex + "` index", "`" + format.MagicFilter + "` filter",
			"`" + format.MagicCompressed + "` compressed segment", fmt.Sprintf("at most %d MiB", format.MaxHeaderSize>>20),
		},
		"segment.md": {
			fmt.Sprintf("Segment files, version %d", Version), "magic `" + format.MagicSegment + "`",
			fmt.Sprintf("a multiple of %d here", BlockSize), "`" + strings.TrimSuffix(shaDomain, "\n") + `\n` + "`",
			fmt.Sprintf("at most %d MiB - 1 bytes", (MaxFrame+1)>>20), fmt.Sprintf("(1 to 2^%d, per run)", 20),
			fmt.Sprintf("1 to %d bytes of UTF-8 each", entry.MaxTopic), fmt.Sprintf("1 to %d bytes of UTF-8)", entry.MaxKindName),
			fmt.Sprintf("user-declared kinds from %d", entry.FirstUserKind),
			"bit 0 final; bit 1 continues in next_salt; bit 2 sync mark; bit 3 halt", "bit 0: detached",
			"bit 0 final: the run ends here; bit 1 continues; bit 2: recovery",
			fmt.Sprintf("%d `%s`, %d `%s`", entry.NoClientOrderID, entry.ClientOrderID, entry.NoVenueOrderID, entry.VenueOrderID),
			fmt.Sprintf("%d `%s` (the entry's own id), %d `%s`", entry.NoID, entry.KindID, entry.NoCorrelationID, entry.KindCorrID),
		},
		"reading-live.md": {fmt.Sprintf("%d bytes", FooterSize), fmt.Sprintf("the footer's %d", footerBody)},
	} {
		page, content := page, text(page)
		for _, claim := range claims {
			if !strings.Contains(content, claim) {
				t.Errorf("%s does not say %q", page, claim)
			}
		}
	}
	if FlagFinal != 1 || FlagContinues != 2 || FlagMark != 4 || FlagHalt != 8 || FlagRecovered != 4 || FlagDetached != 1 {
		t.Error("flags are not those of the page")
	}
	if maxRouteNo != 1<<20 {
		t.Error("the bound of route ids is not that of the page")
	}
}
