package compressed

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "format", "compressed.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table returns offset, size and name of each row of the first table under a heading.
func table(t *testing.T, heading string) (rows [][3]string) {
	t.Helper()
	_, section, ok := strings.Cut(page(t), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" && len(rows) > 0 {
			break
		}
		if cells := strings.Split(line, "|"); len(cells) > 4 {
			if _, err := strconv.Atoi(strings.TrimSpace(cells[1])); err == nil {
				rows = append(rows, [3]string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])})
			}
		}
	}
	return rows
}

// field is where the code has a field; its size is up to the next one.
type field struct {
	name string
	at   int
}

func TestLayoutAgreesWithThePage(t *testing.T) {
	for heading, code := range map[string]struct {
		fields []field
		end    int
	}{
		"### Header fields": {[]field{{"number", hdrNumber}, {"codec", hdrCodec}, {"block_size", hdrBlockSize}, {"blocks", hdrBlocks},
			{"content_start", hdrContentStart}, {"content_end", hdrContentEnd}, {"file_size", hdrFileSize}, {"reserved", hdrReserved}}, headerSize},
		"## Block index": {[]field{{"first", lineFirst}, {"sizes", lineSizes}, {"check", lineCheck}}, lineSize},
		"## Blocks":      {[]field{{"check", 0}, {"stored", checkSize}}, -1},
	} {
		rows := table(t, heading)
		if len(rows) != len(code.fields) {
			t.Errorf("%s: %d fields on the page, %d in the code", heading, len(rows), len(code.fields))
			continue
		}
		for i, f := range code.fields {
			end, size := code.end, "..."
			if i+1 < len(code.fields) {
				end = code.fields[i+1].at
			}
			if end >= 0 {
				size = strconv.Itoa(end - f.at)
			}
			if want := [3]string{strconv.Itoa(f.at), size, f.name}; rows[i] != want {
				t.Errorf("%s: %v on the page, %v in the code", heading, rows[i], want)
			}
		}
	}
}

func TestThePageAgreesOnTheRest(t *testing.T) {
	text := strings.Join(strings.Fields(page(t)), " ")
	for _, claim := range []string{
		fmt.Sprintf("Compressed segments, version %d", Version), "magic `" + format.MagicCompressed + "`", "`" + FileName(1) + "`",
		fmt.Sprintf("%d: zstd, %d: S2", Zstd, S2), fmt.Sprintf("a power of two, %d KiB to %d MiB", MinBlock>>10, MaxBlock>>20),
		fmt.Sprintf("The header is %d bytes", headerSize), fmt.Sprintf("follows at offset %d", headerSize),
		fmt.Sprintf("%d-byte lines", lineSize), fmt.Sprintf("one for each %d blocks", lineBlocks), fmt.Sprintf("%d x u32", lineBlocks),
		fmt.Sprintf("line i / %d", lineBlocks), fmt.Sprintf("%d bytes and its stored bytes", checkSize), fmt.Sprintf("The last %d bytes", segment.FooterSize),
	} {
		if !strings.Contains(text, claim) {
			t.Errorf("the page does not say %q", claim)
		}
	}
	if rawBit != 1<<31 {
		t.Error("bit 31 does not say that a block is stored as it is")
	}
}

// The header of a later version keeps the prelude, so that it is told from damage.
func TestALaterVersionIsNotDamage(t *testing.T) {
	b := squeeze(t, sealedFile(MinBlock), Options{Codec: S2})
	le.PutUint16(b[8:], Version+1)
	reseal(b)
	if _, err := content(opened(b)); err == nil || !strings.Contains(err.Error(), format.ErrVersion.Error()) {
		t.Error(err)
	}
}
