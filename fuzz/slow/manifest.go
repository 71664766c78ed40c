package slow

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
)

// manifestText checks the first line of a manifest or quarantine file and returns the JSON behind it.
func manifestText(b []byte, word string) (object []byte, why string) {
	first := "runlog-" + word + " 1 "
	if !bytes.HasPrefix(b, []byte(first)) || len(b) < len(first)+17 || b[len(first)+16] != '\n' {
		return nil, "first line"
	}
	sum := string(b[len(first) : len(first)+16])
	rest := append([]byte(first), b[len(first)+16:]...)
	if sum != fmt.Sprintf("%016x", xxh64(rest)) {
		return nil, "checksum"
	}
	return b[len(first)+17:], ""
}

// identity are the fields that a segment's header repeats.
var identity = []string{"run", "parent", "instance", "build", "schema_version", "config_hash", "components", "labels", "seed",
	"started", "origin"}

func object(b []byte) (m map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&m)
	return m, err
}

// readFloor reads where the run begins: manifest.md, "Floor". What is below is not part of the run, whether it is there or
// not.
func (l *Log) readFloor() {
	text, why := manifestText(l.files["manifest"], "manifest")
	if why != "" {
		if text, why = manifestText(l.files["manifest.prev"], "manifest"); why != "" {
			return
		}
	}
	var m struct {
		Segment uint32 `json:"floor_segment"`
		Floor   uint64 `json:"floor"`
		Digest  string `json:"base_digest"`
		Ended   *int64 `json:"base_ended"`
	}
	if json.Unmarshal(text, &m) != nil || m.Segment < 2 {
		return
	}
	l.first, l.floor, l.baseTime = m.Segment, m.Floor, m.Ended
	l.last.lastSeq = m.Floor - 1
	base, _ := hex.DecodeString(m.Digest)
	copy(l.lastSHA[:], base)
	files := map[string][]byte{}
	for name, b := range l.files {
		var n uint32
		if _, err := fmt.Sscanf(name, "%08d", &n); err != nil || n >= m.Segment {
			files[name] = b
		}
	}
	l.files = files
}

// checkManifest compares the manifest with what the segments say: manifest.md, "The other fields".
func (l *Log) checkManifest() {
	_, previous := l.files["manifest.prev"]
	if _, why := manifestText(l.files["manifest.prev"], "manifest"); why != "" && previous {
		l.find("manifest.prev", "%s", why)
	}
	if b, there := l.files["quarantine"]; there {
		if _, why := manifestText(b, "quarantine"); why != "" {
			l.find("quarantine", "%s", why)
		}
		l.find("quarantine", "the run is quarantined")
	}
	text, why := manifestText(l.files["manifest"], "manifest")
	if why != "" {
		l.find("manifest", "%s", why)
		return
	}
	m, err := object(text)
	if err != nil {
		l.find("manifest", "JSON: %v", err)
		return
	}
	l.over = m["status"] != "Running"
	if !previous && m["status"] != "Running" { // a crash in the first write can lose it, the last write makes it again
		l.find("manifest.prev", "is not there")
	}
	if len(l.segs) > 0 {
		id, err := object(l.segs[0].identity)
		if err != nil {
			l.find(l.segs[0].name, "identity: %v", err)
		}
		for _, field := range identity {
			if !reflect.DeepEqual(m[field], id[field]) {
				l.find("manifest", "%s is %v, the segments say %v", field, m[field], id[field])
			}
		}
	}
	if m["status"] == "Running" || l.End.Verdict != Clean || !l.Sealed {
		if m["status"] != "Running" && l.End.Verdict == Clean {
			l.find("manifest", "the run is %v, but its last segment has no end", m["status"])
		}
		return
	}
	if l.Digest == "" {
		l.find("manifest", "the run is %v, but its last segment has no footer", m["status"])
		return
	}
	want := map[string]any{"segments": fmt.Sprint(int(l.first) - 1 + l.Segments), "digest": l.Digest}
	if n := len(l.Entries); n > 0 {
		ended := l.maxInit()
		if l.baseTime != nil {
			ended = max(ended, *l.baseTime)
		}
		want["last_seq"], want["ended"] = fmt.Sprint(l.Entries[n-1].Seq), fmt.Sprint(ended)
	}
	if l.Dropped > 0 {
		want["dropped_bytes"] = fmt.Sprint(l.Dropped)
	}
	for _, field := range []string{"segments", "digest", "last_seq", "ended", "dropped_bytes"} {
		got := m[field]
		if n, number := got.(json.Number); number {
			got = n.String()
		}
		if got != want[field] {
			l.find("manifest", "%s is %v, the segments say %v", field, got, want[field])
		}
	}
	var kinds []any
	for id := uint64(16); l.kinds[id] != ""; id++ {
		kinds = append(kinds, map[string]any{"id": json.Number(fmt.Sprint(id)), "name": l.kinds[id]})
	}
	if got, _ := m["kinds"].([]any); !reflect.DeepEqual(got, kinds) {
		l.find("manifest", "kinds are %v, the segments say %v", got, kinds)
	}
}

func (l *Log) maxInit() int64 { return statsOf(l.Entries).maxInit }
