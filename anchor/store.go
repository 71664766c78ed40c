package anchor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
)

// Blob is what a store knows of a blob.
type Blob struct {
	Ref    string
	Size   int64
	SHA256 [sha256.Size]byte
}

// BlobStore keeps snapshots. Its methods are safe for concurrent use. What a Put has returned belongs to that one Put,
// even if the content is that of an older blob, so deleting it takes nothing from anybody else.
type BlobStore interface {
	// Put stores what r gives, to its end, and returns when it is durable. On an error nothing is there under any
	// reference that List or Open would find, as far as the store could still be changed.
	Put(ctx context.Context, r io.Reader) (Blob, error)
	// Open opens a blob from its begin. The error is fs.ErrNotExist, by errors.Is, when the store has no such blob.
	Open(ctx context.Context, ref string) (io.ReadCloser, error)
	// Delete removes a blob for good; fs.ErrNotExist as in Open.
	Delete(ctx context.Context, ref string) error
	// List returns all blobs, in no particular order. What is being put, or was when its process died, is not among them.
	List(ctx context.Context) iter.Seq2[Blob, error]
}

// ErrBlob: a blob is not what its anchor says.
var ErrBlob = errors.New("the blob is not what its anchor says")

// Check reads an anchor's blob from end to end and returns nil if it is there and is what the anchor says; ErrBlob if it
// is something else, or the store's error: fs.ErrNotExist for a blob that is gone.
func Check(ctx context.Context, store BlobStore, a Anchor) error {
	r, err := Open(ctx, store, a)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// Open opens an anchor's blob. The reader's last Read returns ErrBlob in the place of io.EOF if the blob is not what the
// anchor says, and it never gives more bytes than that. What was read up to there may be wrong: whoever cannot take that
// back calls Check before.
func Open(ctx context.Context, store BlobStore, a Anchor) (io.ReadCloser, error) {
	r, err := store.Open(ctx, a.Ref)
	if err != nil {
		return nil, fmt.Errorf("blob %.120q: %w", a.Ref, err)
	}
	return &checked{ctx: ctx, r: r, a: a, h: sha256.New()}, nil
}

// checked compares a blob with its anchor while it is read.
type checked struct {
	ctx context.Context
	r   io.ReadCloser
	a   Anchor
	h   hash.Hash
	n   int64
}

func (c *checked) Close() error { return c.r.Close() }

func (c *checked) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	left := c.a.Size - c.n
	if left == 0 {
		return 0, c.end()
	}
	n, err := c.r.Read(p[:min(int64(len(p)), left)])
	c.n += int64(n)
	_, _ = c.h.Write(p[:n]) // never fails
	if err == io.EOF && c.n < c.a.Size {
		return n, fmt.Errorf("blob %.120q: %w: it ends after %d bytes of %d", c.a.Ref, ErrBlob, c.n, c.a.Size)
	}
	if err == io.EOF {
		err = nil // the next Read judges
	}
	return n, err
}

// end returns io.EOF if what was read is the blob.
func (c *checked) end() error {
	var one [1]byte
	if n, err := io.ReadFull(c.r, one[:]); n > 0 {
		return fmt.Errorf("blob %.120q: %w: it is longer than %d bytes", c.a.Ref, ErrBlob, c.a.Size)
	} else if err != io.EOF {
		return err
	}
	if !bytes.Equal(c.h.Sum(nil), c.a.SHA256[:]) {
		return fmt.Errorf("blob %.120q: %w: its SHA-256 is %x, not %x", c.a.Ref, ErrBlob, c.h.Sum(nil), c.a.SHA256)
	}
	return io.EOF
}
