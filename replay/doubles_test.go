package replay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/vfs"
)

var (
	errStop = errors.New("stop")
	errDown = errors.New("the database is down")
)

func bytesOf(l *ledger) io.Reader { return bytes.NewReader(l.snapshot()) }

// failingStore opens nothing.
type failingStore struct{ anchor.BlobStore }

func (failingStore) Open(context.Context, string) (io.ReadCloser, error) { return nil, errDown }

// changing alters the blob behind the second opening.
type changing struct {
	mapStore
	ref   string
	opens int
}

func (c *changing) Open(ctx context.Context, ref string) (io.ReadCloser, error) {
	if c.opens++; c.opens == 2 { // still a snapshot, but another one
		c.mapStore[c.ref] = bytes.Replace(c.mapStore[c.ref], []byte("alice"), []byte("malic"), 1)
	}
	return c.mapStore.Open(ctx, ref)
}

// stopping fails before it applies an entry, once left has come down to 0.
type stopping struct {
	*ledger
	left *int
}

func (s *stopping) Apply(v *entry.View) (bool, error) {
	if *s.left < 0 {
		return false, errStop
	}
	return s.ledger.Apply(v)
}

// counter is the smallest engine.
type counter struct{ n int }

func (c *counter) Reset(context.Context) error { c.n = 0; return nil }

func (c *counter) Restore(context.Context, anchor.Anchor, io.Reader) error {
	return errors.New("no snapshots")
}

func (c *counter) Apply(*entry.View) (bool, error) { c.n++; return true, nil }

func (c *counter) AppendStateHash(dst []byte) ([]byte, error) { return append(dst, byte(c.n)), nil }

// flipPayload damages durable bytes.
func flipPayload(t testing.TB, fsys vfs.FS, name, what string) {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name, 1<<30)
	must(t, err)
	at := bytes.Index(b, []byte(what))
	if at < 0 {
		t.Fatalf("%q is not in %s", what, name)
	}
	f, err := fsys.Open(name)
	must(t, err)
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	must(t, err)
	must(t, f.Datasync())
	must(t, f.Close())
}
