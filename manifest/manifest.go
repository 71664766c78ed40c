package manifest

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Limits. They are part of the format; errors that report them wrap format.ErrInvalid and name the option.
const (
	MaxText       = 255       // bytes of Build, SchemaVersion, ConfigHash, a component's ID and ConfigHash, a label's key
	MaxLabelValue = 4096      // bytes of a label's value
	MaxLabels     = 256       // labels of one run
	MaxComponents = 1024      // components of one run
	MaxKind       = 64        // bytes of a component's kind
	MaxReason     = 1024      // bytes of a reason or message; longer ones are cut, not refused
	MaxIdentity   = 512 << 10 // bytes of an encoded identity; it shares a segment's header, which has at most 1 MiB
	MaxSize       = 16 << 20  // bytes of a manifest or quarantine file
	MaxInstance   = 64        // bytes of an instance's name
	MaxHalt       = 8 << 10   // bytes of an encoded halt record, whatever its message holds
)

// Origins.
const (
	OriginEngine = "engine" // written live by an engine
	OriginImport = "import" // made from a file; never anybody's parent
)

// Names of the files in a run's folder, and of the lock file in the instance's folder.
const (
	FileName       = "manifest"
	PrevName       = "manifest.prev"
	QuarantineName = "quarantine"
	LockName       = "LOCK"
)

// Status says how a run ended.
type Status string

// The statuses. Quarantined is never written into a manifest: a file of its own says it.
const (
	Running          Status = "Running"          // not sealed: live, or its process died and nobody has recovered it yet
	Ended            Status = "Ended"            // closed by its own process
	CrashedRecovered Status = "CrashedRecovered" // sealed by a later Open
	Quarantined      Status = "Quarantined"      // acknowledged data is damaged; kept as it was found
)

// Sealed reports whether nothing will be written to the run any more.
func (s Status) Sealed() bool { return s == Ended || s == CrashedRecovered || s == Quarantined }

// Validate refuses anything but the four statuses.
func (s Status) Validate() error {
	switch s {
	case Running, Ended, CrashedRecovered, Quarantined:
		return nil
	}
	return fmt.Errorf("%w: status %.40q", format.ErrInvalid, string(s))
}

// Component is a part of the engine whose configuration the run depended on: a strategy, an adapter, a risk module.
type Component struct {
	Kind       string `json:"kind"` // 1 to MaxKind bytes
	ID         string `json:"id"`   // 1 to MaxText bytes
	ConfigHash string `json:"config_hash"`
}

// Identity is fixed when the run is opened and repeated in every segment's header.
type Identity struct {
	Run           string            `json:"run"`    // run id, see NewRunID
	Parent        string            `json:"parent"` // run id of the run whose state this one continues; "" for none
	Instance      string            `json:"instance"`
	Build         string            `json:"build"`
	SchemaVersion string            `json:"schema_version"`
	ConfigHash    string            `json:"config_hash"`
	Components    []Component       `json:"components,omitempty"` // in the caller's order
	Labels        map[string]string `json:"labels,omitempty"`
	Seed          *uint64           `json:"seed,omitempty"` // nil: the run had none
	Started       int64             `json:"started"`        // ns since 1970 UTC
	Origin        string            `json:"origin"`         // OriginEngine or OriginImport
}

// KeyKind is a declared key kind. The built-in kinds are not listed.
type KeyKind struct {
	ID   uint32 `json:"id"` // from entry.FirstUserKind, ascending
	Name string `json:"name"`
}

// Skipped is a predecessor that Open found quarantined, and so did not consider as a parent.
type Skipped struct {
	Run    string `json:"run"` // the name of its folder
	Reason string `json:"reason"`
}

// Manifest is the whole manifest. Its JSON is one flat object, the identity's fields first.
type Manifest struct {
	Identity
	Kinds        []KeyKind `json:"kinds,omitempty"`
	Status       Status    `json:"status"`
	Ended        *int64    `json:"ended,omitempty"`         // greatest ts_init, ns; nil while running and without entries
	LastSeq      uint64    `json:"last_seq,omitempty"`      // set at the seal
	Segments     uint32    `json:"segments,omitempty"`      // set at the seal
	Digest       string    `json:"digest,omitempty"`        // run_sha256 of the last segment, 64 lowercase hex digits, set at the seal
	DroppedBytes int64     `json:"dropped_bytes,omitempty"` // torn tail that recovery cut off
	Halt         *Halt     `json:"halt,omitempty"`
	Skipped      []Skipped `json:"skipped,omitempty"`

	// What retention has removed from the front of the run. Nothing else knows it, so both copies of the file carry it before
	// a segment goes. All but BaseEnded are set, or none is.
	FloorSegment uint32 `json:"floor_segment,omitempty"` // number of the first segment that is still part of the run, at least 2
	Floor        uint64 `json:"floor,omitempty"`         // its first seq
	BaseDigest   string `json:"base_digest,omitempty"`   // run_sha256 of the segment before it
	BaseEnded    *int64 `json:"base_ended,omitempty"`    // greatest ts_init of the entries that are gone, ns; nil if there was none

	Signature string `json:"signature,omitempty"` // signed statement, see package proof; at most MaxLabelValue bytes; readers do not check it
}

func invalid(f string, args ...any) error {
	return fmt.Errorf("%w: "+f, append([]any{format.ErrInvalid}, args...)...)
}

// text checks one string: min to max bytes of UTF-8.
func text(name, s string, min, max int) error {
	switch {
	case len(s) < min:
		return invalid("%s is empty", name)
	case len(s) > max:
		return invalid("%s has %d bytes, at most %d are allowed", name, len(s), max)
	case !utf8.ValidString(s):
		return invalid("%s is not UTF-8", name)
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Validate checks every limit but MaxIdentity, which EncodeIdentity checks. Errors wrap format.ErrInvalid and name
// the option.
func (id *Identity) Validate() error {
	if !ValidRunID(id.Run) {
		return invalid("Run %.80q is not a run id", id.Run)
	}
	if id.Parent != "" && !ValidRunID(id.Parent) {
		return invalid("Parent %.80q is not a run id", id.Parent)
	}
	if !ValidInstance(id.Instance) {
		return invalid("Instance %.80q: want 1 to %d of A-Z a-z 0-9 . _ -, the first not a dot", id.Instance, MaxInstance)
	}
	if err := first(
		text("Build", id.Build, 0, MaxText),
		text("SchemaVersion", id.SchemaVersion, 0, MaxText),
		text("ConfigHash", id.ConfigHash, 0, MaxText),
	); err != nil {
		return err
	}
	if len(id.Components) > MaxComponents {
		return invalid("Components: %d, at most %d are allowed", len(id.Components), MaxComponents)
	}
	for i, c := range id.Components {
		name := func(field string) string { return fmt.Sprintf("Components[%d].%s", i, field) }
		if err := first(
			text(name("Kind"), c.Kind, 1, MaxKind),
			text(name("ID"), c.ID, 1, MaxText),
			text(name("ConfigHash"), c.ConfigHash, 0, MaxText),
		); err != nil {
			return err
		}
	}
	if len(id.Labels) > MaxLabels {
		return invalid("Labels: %d, at most %d are allowed", len(id.Labels), MaxLabels)
	}
	for _, k := range sortedKeys(id.Labels) { // sorted, so that the same labels give the same error
		if err := first(
			text(fmt.Sprintf("Labels: key %.40q", k), k, 1, MaxText),
			text(fmt.Sprintf("Labels[%.40q]", k), id.Labels[k], 0, MaxLabelValue),
		); err != nil {
			return err
		}
	}
	if id.Origin != OriginEngine && id.Origin != OriginImport {
		return invalid("Origin %.40q: want %q or %q", id.Origin, OriginEngine, OriginImport)
	}
	return nil
}

// Validate checks the identity and everything else that a manifest must satisfy.
func (m *Manifest) Validate() error {
	if err := m.Identity.Validate(); err != nil {
		return err
	}
	if err := m.Status.Validate(); err != nil {
		return err
	}
	if m.Status == Quarantined {
		return invalid("Status: quarantine has a file of its own")
	}
	if m.Status == Running && (m.Ended != nil || m.Digest != "") {
		return invalid("Status: a running run has neither Ended nor Digest")
	}
	if len(m.Kinds) > entry.MaxKinds {
		return invalid("Kinds: %d, at most %d are allowed", len(m.Kinds), entry.MaxKinds)
	}
	names := make(map[string]bool, len(m.Kinds))
	for i, k := range m.Kinds {
		name := fmt.Sprintf("Kinds[%d]", i)
		if err := text(name+".Name", k.Name, 1, entry.MaxKindName); err != nil {
			return err
		}
		if k.ID < uint32(entry.FirstUserKind) || i > 0 && k.ID <= m.Kinds[i-1].ID {
			return invalid("%s.ID %d: ids start at %d and ascend", name, k.ID, entry.FirstUserKind)
		}
		if _, builtin := (*entry.Kinds)(nil).No(k.Name); builtin || names[k.Name] {
			return invalid("%s.Name %q is taken", name, k.Name)
		}
		names[k.Name] = true
	}
	if m.DroppedBytes < 0 {
		return invalid("DroppedBytes %d", m.DroppedBytes)
	}
	if m.Halt != nil {
		if err := m.Halt.Validate(); err != nil {
			return err
		}
	}
	for i, s := range m.Skipped {
		if s.Run == "" {
			return invalid("Skipped[%d].Run is empty", i)
		}
	}
	return first(
		digest("Digest", m.Digest),
		digest("BaseDigest", m.BaseDigest),
		m.validateFloor(),
		text("Signature", m.Signature, 0, MaxLabelValue),
	)
}

// validateFloor checks that the floor is whole, and inside the run.
func (m *Manifest) validateFloor() error {
	switch {
	case m.FloorSegment == 0 && (m.Floor != 0 || m.BaseDigest != "" || m.BaseEnded != nil):
		return invalid("Floor, BaseDigest and BaseEnded need a FloorSegment")
	case m.FloorSegment == 0:
		return nil
	case m.FloorSegment == 1 || m.Floor == 0 || m.BaseDigest == "":
		return invalid("FloorSegment %d: want at least 2, with Floor and BaseDigest", m.FloorSegment)
	case m.Status.Sealed() && (m.FloorSegment > m.Segments || m.Floor > m.LastSeq):
		return invalid("FloorSegment %d, Floor %d: the run ends in segment %d at seq %d", m.FloorSegment, m.Floor, m.Segments, m.LastSeq)
	}
	return nil
}

// FirstSegment is the number of the first segment that is part of the run.
func (m *Manifest) FirstSegment() uint32 { return max(m.FloorSegment, 1) }

// FirstSeq is the first seq that is part of the run.
func (m *Manifest) FirstSeq() uint64 { return max(m.Floor, 1) }

// digest checks an absent or SHA-256 digest in lowercase hex.
func digest(name, s string) error {
	if s == "" || len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" {
		return nil
	}
	return invalid("%s %.70q: want 64 lowercase hex digits", name, s)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// clip makes free text fit: valid UTF-8, at most MaxReason bytes. Reasons and messages are cut rather than refused, since
// a verdict must not fail for its prose.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxReason {
		return s
	}
	const dots = "..."
	n := MaxReason - len(dots)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots
}

// normalize copies what it changes, so that the caller's value stays as it is.
func (m *Manifest) normalize() {
	if m.Halt != nil {
		h := *m.Halt
		h.Message = clip(h.Message)
		m.Halt = &h
	}
	if len(m.Skipped) == 0 {
		m.Skipped = nil
	} else {
		m.Skipped = slices.Clone(m.Skipped)
		for i := range m.Skipped {
			m.Skipped[i].Run, m.Skipped[i].Reason = clip(m.Skipped[i].Run), clip(m.Skipped[i].Reason)
		}
	}
	if len(m.Kinds) == 0 {
		m.Kinds = nil
	}
	m.Identity.normalize()
}

func (id *Identity) normalize() {
	if len(id.Components) == 0 {
		id.Components = nil
	}
	if len(id.Labels) == 0 {
		id.Labels = nil
	}
}
