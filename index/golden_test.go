package index

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/vfs"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden compares with a file under testdata, or writes it.
func golden(t *testing.T, name string, got []byte) string {
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
		t.Errorf("%s has changed: the format's version must be raised, or the change undone", path)
	}
	return path
}

func TestGoldenIndex(t *testing.T) {
	m := smallModel()
	path := golden(t, "golden-v2.idx", m.encode(t))
	f, err := Open(vfs.OS, path, m.meta)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.checkFile(f, false); err != nil {
		t.Error(err)
	}
	if err := f.VerifyAll(); err != nil {
		t.Error(err)
	}
}

func TestGoldenFilter(t *testing.T) {
	files, models, salts := openFiles(t, 1, 4, 30)
	fsys := newMemFS()
	if err := BuildFilter(fsys, "", 1, 4, files); err != nil {
		t.Fatal(err)
	}
	path := golden(t, "golden-v1.flt", fsys.files[FilterName(1, 4)].b)
	f, err := OpenFilter(vfs.OS, path, FilterWant{First: 1, Last: 4, Salts: ChainSalts(salts...)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, m := range models {
		for fp := range m.keys {
			if ok, err := f.MayContain(fp); !ok || err != nil {
				t.Error(ok, err)
			}
		}
	}
	if err := f.VerifyAll(); err != nil {
		t.Error(err)
	}
}

// pageTable reads the first table under a heading of docs/format/index.md: the first two columns, by the third.
func pageTable(t *testing.T, heading string) map[string][2]int {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "format", "index.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	table := map[string][2]int{}
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "#") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 3 {
			continue
		}
		offset, err1 := strconv.Atoi(strings.TrimSpace(cells[0]))
		size, err2 := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err1 == nil && err2 == nil {
			table[strings.TrimSpace(cells[2])] = [2]int{offset, size}
		}
	}
	return table
}

func TestCodeAgreesWithThePage(t *testing.T) {
	for heading, want := range map[string]map[string][2]int{
		"### Header fields": {
			"number": {hdrNumber, 4}, "sample_every": {hdrSampleEvery, 4}, "chain": {hdrChain, 8},
			"content_end": {hdrContentEnd, 8}, "first_seq": {hdrFirstSeq, 8}, "entries": {hdrEntries, 8},
			"min_init": {hdrMinInit, 8}, "max_init": {hdrMaxInit, 8}, "min_publish": {hdrMinPublish, 8},
			"max_publish": {hdrMaxPublish, 8}, "base_time": {hdrBaseTime, 8}, "samples_at": {hdrSamplesAt, 8},
			"buckets_at": {hdrBucketsAt, 8}, "buckets": {hdrBuckets, 8}, "postings_at": {hdrPostingsAt, 8},
			"postings_size": {hdrPostingsSize, 8}, "dict_at": {hdrDictAt, 8}, "dict_size": {hdrDictSize, 8},
			"file_size": {hdrFileSize, 8}, "keys": {hdrKeys, 8}, "key_postings": {hdrKeyPostings, 8},
			"notes_at": {hdrNotesAt, 8}, "notes_size": {hdrNotesSize, 8},
		},
		"### Filter header fields": {
			"first": {fltFirst, 4}, "last": {fltLast, 4}, "blocks": {fltBlocks, 8}, "keys": {fltKeys, 8}, "salts": {fltSalts, 8},
		},
	} {
		got := pageTable(t, heading)
		if len(got) != len(want) {
			t.Errorf("%s: %d fields on the page, %d in the code", heading, len(got), len(want))
		}
		for field, w := range want {
			if got[field] != w {
				t.Errorf("%s: %s is %v on the page, %v in the code", heading, field, got[field], w)
			}
		}
	}
	buckets := pageTable(t, "## Key buckets")
	at := map[int]int{}
	for _, v := range buckets {
		at[v[0]] = v[1]
	}
	want := map[int]int{0: bucketValues, bucketValues: 4 * bucketSlots, bucketTags: tagSize * bucketSlots}
	for offset, size := range want {
		if at[offset] != size {
			t.Errorf("key buckets: %d bytes at %d on the page, %d in the code", at[offset], offset, size)
		}
	}
	if len(at) != len(want) || bucketTags+tagSize*bucketSlots != bucketSize {
		t.Errorf("key buckets: %v", at)
	}
}
