package proof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ErrInvalid: a statement or a proof does not hold, or is not one.
var ErrInvalid = errors.New("does not hold")

// ErrVersion: the file is one of a version that this build does not read.
var ErrVersion = errors.New("unsupported version")

// MaxStatement bounds the bytes of a statement with its signatures.
const MaxStatement = 64 << 10

// Statement says what a sealed run holds. Two runs with the same statement have the same entries.
type Statement struct {
	Run
	Entries  uint64 // of the run, and leaves of the tree: seqs 1 to Entries
	Root     Hash   // of the tree over all entries
	Digest   string // run_sha256 of the run's last segment, 64 lowercase hex digits
	Manifest string // SHA-256 of the manifest without its signature, 64 lowercase hex digits
}

const (
	origin        = "runlog"
	versionLine   = "runlog statement "
	version       = "1"
	runDigest     = "run_sha256 "
	manDigest     = "manifest_sha256 "
	lastSeq       = "last_seq "
	statementLine = 7
)

// Text is the statement as it is signed, in the form of a checkpoint of a transparency log: origin, size, root, and lines
// that only runlog reads.
func (s *Statement) Text() string {
	return fmt.Sprintf("%s/%s/%s\n%d\n%s\n%s%s\n%s%d\n%s%s\n%s%s\n", origin, s.Instance, s.ID, s.Entries, s.Root,
		versionLine, version, lastSeq, s.Entries, runDigest, s.Digest, manDigest, s.Manifest)
}

// The names that a run can have, as docs/format/manifest.md says. Package manifest would bring the file system along.
var (
	instances = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)
	runIDs    = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{9}Z-[0-9a-f]{8}$`)
	digests   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseText reads a statement's text, which has exactly one form. Errors wrap ErrInvalid or ErrVersion.
func ParseText(text string) (s Statement, err error) {
	bad := func(why string) (Statement, error) {
		return Statement{}, fmt.Errorf("statement: %s: %w", why, ErrInvalid)
	}
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[3], versionLine) {
		return bad("it is not a statement of runlog")
	}
	if v := lines[3][len(versionLine):]; v != version {
		return Statement{}, fmt.Errorf("statement: version %.20q, this build reads %s: %w", v, version, ErrVersion)
	}
	if len(lines) != statementLine+1 {
		return bad(fmt.Sprintf("want %d lines", statementLine))
	}
	who := strings.Split(lines[0], "/")
	if len(who) != 3 || !instances.MatchString(who[1]) || !runIDs.MatchString(who[2]) {
		return bad("the first line does not name a run")
	}
	s.Run = Run{Instance: who[1], ID: who[2]}
	if s.Entries, err = strconv.ParseUint(lines[1], 10, 62); err != nil {
		return bad("the second line is not a size")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || copy(s.Root[:], root) != len(s.Root) {
		return bad("the third line is not a root")
	}
	s.Digest, s.Manifest = strings.TrimPrefix(lines[5], runDigest), strings.TrimPrefix(lines[6], manDigest)
	if !digests.MatchString(s.Digest) || !digests.MatchString(s.Manifest) || s.Text() != text {
		return bad("it is not in the form that a statement has")
	}
	return s, nil
}

// Sign gives the signed statement: the text, an empty line, and a line for each signature. Signing again gives the same
// bytes.
func (s *Statement) Sign(signers ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: s.Text()}, signers...)
}

// Signed is a statement that was read.
type Signed struct {
	Statement
	By      []string // names of the given keys whose signatures are right
	Unknown []string // names of other keys that have signed, if that is true: they were not checked
}

// Read reads a statement, signed or not. Where keys are given, one of them must have signed, and no signature of theirs
// may be wrong. Errors wrap ErrInvalid or ErrVersion.
func Read(b []byte, keys ...note.Verifier) (Signed, error) {
	if len(b) > MaxStatement {
		return Signed{}, fmt.Errorf("statement: more than %d bytes: %w", MaxStatement, ErrInvalid)
	}
	if !bytes.Contains(b, []byte("\n\n")) {
		s, err := ParseText(string(b))
		if err == nil && len(keys) > 0 {
			err = fmt.Errorf("statement: it is not signed: %w", ErrInvalid)
		}
		return Signed{Statement: s}, err
	}
	n, err := note.Open(b, note.VerifierList(keys...))
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		if n = unverified.Note; len(keys) > 0 {
			return Signed{}, fmt.Errorf("statement: signed by %s, which is not the key given: %w",
				names(n.UnverifiedSigs), ErrInvalid)
		}
	} else if err != nil {
		return Signed{}, fmt.Errorf("statement: %w: %w", err, ErrInvalid)
	}
	// note passes over what repeats, and over the last bits of base64: nothing here is to have two forms.
	sigs := append(append([]note.Signature{}, n.Sigs...), n.UnverifiedSigs...)
	if len(sigs) != bytes.Count(b[len(n.Text):], []byte("\n"))-1 {
		return Signed{}, fmt.Errorf("statement: a signature stands there twice: %w", ErrInvalid)
	}
	for _, sig := range sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return Signed{}, fmt.Errorf("statement: signature of %s: %w: %w", sig.Name, err, ErrInvalid)
		}
	}
	s, err := ParseText(n.Text)
	if err != nil {
		return Signed{}, err
	}
	signed := Signed{Statement: s}
	for _, sig := range n.Sigs {
		signed.By = append(signed.By, sig.Name)
	}
	for _, sig := range n.UnverifiedSigs {
		signed.Unknown = append(signed.Unknown, sig.Name)
	}
	return signed, nil
}

func names(sigs []note.Signature) string {
	var list []string
	for _, s := range sigs {
		list = append(list, s.Name)
	}
	return strings.Join(list, ", ")
}
