package runlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// Import makes a finished run out of entries from elsewhere. It is built aside, in a folder that readers and boots
// ignore, and appears when it is sealed. It needs no instance lock, and is nobody's parent unless
// Options.ContinueFrom names it. It belongs to one goroutine.
type Import struct {
	o     Options
	aside string
	final string
	claim io.Closer
	log   *wal.Log
	w     *writer.Writer
	begun bool
	early []entry.Note // that were added before the first entry, from which RunStarted takes its time
	id    manifest.Identity
}

const (
	asidePrefix = ".import-"
	lockSuffix  = ".lock" // locked as long as the import is at work
)

// NewImport starts an import. Stall thresholds are off.
func NewImport(o Options) (*Import, error) {
	if err := o.resolve(); err != nil {
		return nil, err
	}
	if o.ContinueFrom != "" {
		return nil, fmt.Errorf("%w: option ContinueFrom: an import continues no run", ErrInvalid)
	}
	o.WarnAfter, o.HaltAfter, o.IdleMark = -1, -1, -1
	base := filepath.Join(o.Dir, o.Instance)
	if err := o.FS.MkdirAll(base); err != nil {
		return nil, fmt.Errorf("runlog: option Dir: %w", err)
	}
	if err := removeStale(o.FS, base); err != nil {
		return nil, fmt.Errorf("runlog: leftovers of an import that died: %w", err)
	}
	newest, err := newestRun(&o, base)
	if err != nil {
		return nil, err
	}
	now := o.Clock.Now()
	id := manifest.NewRunID(now, newest, random32(o.Salts))
	im := &Import{o: o, aside: filepath.Join(base, asidePrefix+id), final: filepath.Join(base, id)}
	im.id = o.identity(id, "", manifest.OriginImport, now)
	m := manifest.Manifest{Identity: im.id, Kinds: o.kinds(), Status: manifest.Running}
	if im.claim, err = claimAside(o.FS, im.aside+lockSuffix); err != nil {
		return nil, err
	}
	if im.log, err = wal.Create(o.wal(im.aside, m)); err != nil {
		return nil, errors.Join(err, removeAll(o.FS, im.aside), im.unlock())
	}
	wo := o.writer()
	wo.KeepPublish = true
	if im.w, err = writer.New(im.log, 0, im.log.MaxBatchBytes(), wo); err != nil {
		im.log.Abandon()
		return nil, errors.Join(err, removeAll(o.FS, im.aside), im.unlock())
	}
	return im, nil
}

func newestRun(o *Options, base string) (string, error) {
	names, err := o.FS.ReadDir(base)
	if err != nil {
		return "", err
	}
	newest := ""
	for _, e := range names {
		if manifest.ValidRunID(e.Name()) {
			newest = e.Name()
		}
	}
	return newest, nil
}

// begin writes RunStarted, just before the first entry's time if that is given.
func (im *Import) begin(ts int64) error {
	if im.begun {
		return nil
	}
	im.begun = true
	payload, err := manifest.EncodeIdentity(im.id)
	if err != nil {
		return err
	}
	d := entry.Draft{Topic: entry.TopicStarted, Type: entry.TypeStarted, Payload: payload, TsInit: im.id.Started}
	if ts != 0 {
		d.TsInit = ts
		d.TsPublish = ts - 1
		if ts == 1 {
			d.TsPublish = -1 // 0 would mean "stamp it"
		}
	}
	if _, err = im.w.SubmitOwn(&d); err != nil {
		return err
	}
	for _, n := range im.early {
		if _, _, err := im.w.Note(n.Kind, n.Body); err != nil {
			return err
		}
	}
	im.early = nil
	return nil
}

// Note adds a note behind the entries that were added so far. Before the first one, it stands behind RunStarted.
func (im *Import) Note(kind entry.NoteKind, body []byte) error {
	if im.begun {
		_, _, err := im.w.Note(kind, body)
		return err
	}
	if err := entry.CheckNote(kind, body); err != nil {
		return err
	}
	im.early = append(im.early, entry.Note{Kind: kind, Body: slices.Clone(body)})
	return nil
}

// Add adds an entry. A TsPublish that is set is kept and must come after the one before (ErrInvalid otherwise); 0
// stamps it.
func (im *Import) Add(d Draft) error {
	if !im.begun {
		if err := im.check(&d); err != nil {
			return err
		}
		if err := im.begin(d.TsPublish); err != nil {
			return err
		}
	}
	_, err := im.w.Submit(&d)
	return err
}

// check refuses a bad first draft before RunStarted takes its time from it.
func (im *Import) check(d *Draft) error {
	limit := im.o.MaxPayload
	if limit == 0 {
		limit = entry.DefaultMaxPayload
	}
	return d.Check(im.log.Kinds(), limit)
}

// DeclareKind declares a key kind.
func (im *Import) DeclareKind(name string) error {
	_, err := im.log.DeclareKind(name)
	return err
}

// Finish seals the run and lets it appear, all durable, and returns its folder. On an error nothing has appeared,
// unless it says that the folder could not be synced: then it is there, but a power cut may take it.
func (im *Import) Finish(ctx context.Context) (dir string, err error) {
	if err := im.begin(0); err != nil {
		return "", errors.Join(err, im.Abort())
	}
	if err := im.w.Close(ctx, &entry.Draft{Topic: entry.TopicEnded, Type: entry.TypeEnded, TsInit: im.o.Clock.Now()}); err != nil {
		return "", errors.Join(err, im.Abort())
	}
	im.log.Close()
	if err := im.o.FS.Rename(im.aside, im.final); err != nil {
		return "", errors.Join(err, removeAll(im.o.FS, im.aside), im.unlock())
	}
	unlocked := im.unlock() // at worst an empty lock file stays, which the next import removes
	if err := im.o.FS.SyncDir(filepath.Dir(im.final)); err != nil {
		return "", fmt.Errorf("runlog: %s is made, but its folder could not be synced: %w", im.final, errors.Join(err, unlocked))
	}
	return im.final, nil
}

// Abort ends the import and removes what it has made.
func (im *Import) Abort() error {
	_ = im.w.Close(context.Background(), nil)
	im.log.Close()
	im.log.Quiesce()
	return errors.Join(removeAll(im.o.FS, im.aside), im.unlock())
}

// unlock lets go of the claim on the folder aside.
func (im *Import) unlock() error {
	return errors.Join(im.o.FS.Remove(im.aside+lockSuffix), im.claim.Close())
}

// claimAside locks the file that says that an import is at work. Another import may have taken it for a leftover just
// after it was made, and have removed the name; then it is made again.
func claimAside(fsys vfs.FS, name string) (io.Closer, error) {
	for try := 0; ; try++ {
		claim, err := fsys.Lock(name, nil)
		var held *vfs.LockedError
		switch {
		case errors.As(err, &held) && try < 100:
			time.Sleep(time.Millisecond)
			continue
		case err != nil:
			return nil, err
		}
		if _, err = fsys.Stat(name); err == nil || try == 100 {
			return claim, err
		}
		if err := claim.Close(); err != nil {
			return nil, err
		}
	}
}

// removeStale removes what imports that died have left behind.
func removeStale(fsys vfs.FS, base string) error {
	names, err := fsys.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range names {
		if !strings.HasPrefix(e.Name(), asidePrefix) {
			continue
		}
		dir := strings.TrimSuffix(filepath.Join(base, e.Name()), lockSuffix)
		claim, err := fsys.Lock(dir+lockSuffix, nil)
		if err != nil {
			continue // at work
		}
		gone := removeAll(fsys, dir)
		if errors.Is(gone, fs.ErrNotExist) {
			gone = nil // that import has finished in the meantime
		}
		lock := fsys.Remove(dir + lockSuffix)
		if errors.Is(lock, fs.ErrNotExist) {
			lock = nil
		}
		if err = errors.Join(gone, lock, claim.Close()); err != nil {
			return err
		}
	}
	return nil
}
