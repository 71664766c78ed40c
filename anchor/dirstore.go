package anchor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"

	"github.com/runlog-io/runlog/vfs"
)

// DirStore is a BlobStore in a folder. A blob's file, and its reference, is "<sha256 in hex>-<16 hex digits>.blob"; the
// digits tell blobs of the same content apart. A file is written under a name that ends in ".tmp", synced, renamed, and
// its folder synced, so a name with ".blob" leads to a whole blob, whatever a crash has cut short. The folder may be
// shared by processes on one machine, and lie beside the runs: readers and boots of runs ignore it.
type DirStore struct {
	fsys vfs.FS
	dir  string
	salt func() uint64
}

const (
	blobSuffix = ".blob"
	tmpSuffix  = ".tmp"
	saltDigits = 16
	piece      = 1 << 20 // written and synced at a time, so that a large blob does not keep other files' syncs waiting
)

// NewDirStore uses a folder as a store; it makes the folder if need be. salts numbers the blobs; nil: by chance.
func NewDirStore(fsys vfs.FS, dir string, salts func() uint64) (*DirStore, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil { // it may be the work of a process that died before it could
		return nil, err
	}
	return OpenDirStore(fsys, dir, salts), nil
}

// OpenDirStore is NewDirStore for who only reads: it writes nothing.
func OpenDirStore(fsys vfs.FS, dir string, salts func() uint64) *DirStore {
	if salts == nil {
		salts = func() uint64 {
			var b [8]byte
			_, _ = rand.Read(b[:]) // never fails
			return binary.LittleEndian.Uint64(b[:])
		}
	}
	return &DirStore{fsys: fsys, dir: dir, salt: salts}
}

// Dir is the folder.
func (s *DirStore) Dir() string { return s.dir }

// Put implements BlobStore. Memory use does not depend on the size of the blob.
func (s *DirStore) Put(ctx context.Context, r io.Reader) (Blob, error) {
	salt := fmt.Sprintf("%0*x", saltDigits, s.salt())
	tmp := filepath.Join(s.dir, salt+tmpSuffix)
	f, err := s.fsys.Create(tmp)
	if err != nil {
		return Blob{}, err
	}
	b, err := write(ctx, f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Blob{}, errors.Join(err, s.fsys.Remove(tmp))
	}
	b.Ref = hex.EncodeToString(b.SHA256[:]) + "-" + salt + blobSuffix
	name := filepath.Join(s.dir, b.Ref)
	if err := s.fsys.Rename(tmp, name); err != nil {
		return Blob{}, errors.Join(err, s.fsys.Remove(tmp))
	}
	if err := s.fsys.SyncDir(s.dir); err != nil {
		return Blob{}, errors.Join(err, s.fsys.Remove(name))
	}
	return b, nil
}

// write copies r into the file and makes it durable.
func write(ctx context.Context, f vfs.File, r io.Reader) (b Blob, err error) {
	h := sha256.New()
	buf := make([]byte, piece)
	for end := false; !end; {
		if err := ctx.Err(); err != nil {
			return b, err
		}
		n, err := fill(buf, r)
		if end = err == io.EOF; err != nil && !end {
			return b, fmt.Errorf("read the snapshot: %w", err)
		}
		_, _ = h.Write(buf[:n]) // never fails
		if _, err := f.WriteAt(buf[:n], b.Size); err != nil {
			return b, err
		}
		b.Size += int64(n)
		if err := f.Datasync(); err != nil {
			return b, err
		}
	}
	h.Sum(b.SHA256[:0])
	return b, nil
}

// fill reads until buf is full. Unlike io.ReadFull it tells a reader that has come to its end, io.EOF, from one whose own
// source was cut short.
func fill(buf []byte, r io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// parse reads a blob's name.
func parse(ref string) (b Blob, ok bool) {
	const digits = 2 * sha256.Size
	name, isBlob := strings.CutSuffix(ref, blobSuffix)
	if !isBlob || len(name) != digits+1+saltDigits || name[digits] != '-' || strings.ToLower(name) != name {
		return b, false
	}
	if _, err := hex.DecodeString(name[digits+1:]); err != nil {
		return b, false
	}
	b.Ref = ref
	_, err := hex.Decode(b.SHA256[:], []byte(name[:digits]))
	return b, err == nil
}

// name returns a blob's path. A reference that this store cannot have made leads nowhere, and above all not out of the
// folder.
func (s *DirStore) name(op, ref string) (string, error) {
	if _, ok := parse(ref); !ok {
		return "", &fs.PathError{Op: op, Path: ref, Err: fs.ErrNotExist}
	}
	return filepath.Join(s.dir, ref), nil
}

// Open implements BlobStore.
func (s *DirStore) Open(_ context.Context, ref string) (io.ReadCloser, error) {
	name, err := s.name("open", ref)
	if err != nil {
		return nil, err
	}
	f, err := s.fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &section{io.NewSectionReader(f, 0, size), f}, nil
}

type section struct {
	*io.SectionReader
	io.Closer
}

// Delete implements BlobStore.
func (s *DirStore) Delete(_ context.Context, ref string) error {
	name, err := s.name("remove", ref)
	if err != nil {
		return err
	}
	if err := s.fsys.Remove(name); err != nil {
		return err
	}
	return s.fsys.SyncDir(s.dir)
}

// List implements BlobStore. It reads names and sizes only.
func (s *DirStore) List(ctx context.Context) iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		names, err := s.fsys.ReadDir(s.dir)
		if err != nil {
			yield(Blob{}, err)
			return
		}
		for _, e := range names {
			b, ok := parse(e.Name())
			if !ok || e.IsDir() {
				continue
			}
			err := ctx.Err()
			if err == nil {
				var info fs.FileInfo
				if info, err = e.Info(); err == nil {
					b.Size = info.Size()
				}
			}
			switch {
			case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
				continue
			case err != nil:
				yield(Blob{}, err)
				return
			case !yield(b, nil):
				return
			}
		}
	}
}

// RemoveUnfinished removes what Puts that died have left. Nobody may be putting meanwhile: an engine calls it while it
// holds its instance and before its first Put.
func (s *DirStore) RemoveUnfinished() error {
	names, err := s.fsys.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		salt, ok := strings.CutSuffix(e.Name(), tmpSuffix)
		if _, err := hex.DecodeString(salt); !ok || e.IsDir() || len(salt) != saltDigits || err != nil {
			continue
		}
		if err := s.fsys.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return s.fsys.SyncDir(s.dir)
}
