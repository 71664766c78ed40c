package wal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// Codec is how the blocks of a compressed segment are compressed.
type Codec = compressed.Codec

// The codecs.
const (
	NoCodec Codec = compressed.None
	Zstd    Codec = compressed.Zstd
	S2      Codec = compressed.S2
)

// Compression says whether and how sealed segments are compressed. The zero value: they are not.
type Compression struct {
	Codec      Codec // 0: none
	Level      int   // 0: 1, the fastest; zstd has 1 to 4, S2 1 to 3
	BlockBytes int   // what is compressed as one, and decompressed to read any of it; 0: 32 KiB; a power of two, 4 KiB to 1 MiB
	KeepPlain  int   // so many of the newest sealed segments stay as they are: what is read most; 0: none
}

func (c *Compression) options() compressed.Options {
	return compressed.Options{Codec: c.Codec, Level: c.Level, BlockBytes: c.BlockBytes}
}

// Check says whether it can be used.
func (c Compression) Check() error {
	if c.KeepPlain < 0 {
		return fmt.Errorf("%w: KeepPlain %d", format.ErrInvalid, c.KeepPlain)
	}
	if c.Codec == NoCodec {
		return nil
	}
	return c.options().Check()
}

// packer compresses the sealed segments of a log that is being written, behind the writer's and the sealer's backs. What it
// has not come to when the log is sealed or abandoned is left to a later pass.
type packer struct {
	l *Log

	stopped atomic.Bool // set by whoever ends the log, read between the steps

	mu   sync.Mutex
	cond sync.Cond
	next uint32 // the first segment that was not looked at
	last uint32 // the last one that is sealed
	busy bool
}

func newPacker(l *Log) *packer {
	p := &packer{l: l, next: 1}
	p.cond.L = &p.mu
	return p
}

// sealed notes that segment n has its footer, and all before it have. It returns at once, unless the log works inline.
func (p *packer) sealed(n uint32) {
	if p.l.o.Compress.Codec == NoCodec || p.stopped.Load() {
		return
	}
	p.mu.Lock()
	p.last = n
	p.mu.Unlock()
	if p.l.o.Inline {
		p.run()
	} else {
		p.l.o.Background(p.run)
	}
}

// run compresses what is due, unless somebody is doing that.
func (p *packer) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy {
		return
	}
	p.busy = true
	for !p.stopped.Load() && int64(p.next)+int64(p.l.o.Compress.KeepPlain) <= int64(p.last) {
		n := p.next
		p.next++
		p.mu.Unlock()
		p.l.pack(n)
		p.mu.Lock()
	}
	p.busy = false
	p.cond.Broadcast()
}

// stop lets no further segment be compressed, and ends what is going on at its next step.
func (p *packer) stop() { p.stopped.Store(true) }

// wait returns when nothing is being compressed.
func (p *packer) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.busy {
		p.cond.Wait()
	}
}

var errStopped = errors.New("compressing was stopped")

// pack compresses one segment of a log that is being written. Trouble with it does not endanger the log.
func (l *Log) pack(n uint32) {
	if err := l.packAlone(n); err != nil {
		l.o.Warn(err) // with no lock held: it may lead to a removal
	}
}

// packAlone is pack while nobody removes the segment.
func (l *Log) packAlone(n uint32) error {
	l.retaining.Lock()
	defer l.retaining.Unlock()
	w := swap{fsys: l.o.FS, dir: l.o.Dir, run: l.o.Manifest.Run, step: func() error {
		if l.packer.stopped.Load() {
			return errStopped
		}
		return nil
	}}
	if l.o.rests {
		w.rest = rests()
	}
	plain, packed := w.names(n)
	what, err := w.compress(n, l.o.Compress.options())
	if err != nil && !errors.Is(err, errStopped) {
		return &format.Error{Path: packed, Offset: -1, Why: "the segment was not compressed, or its plain file not removed", Err: err}
	}
	if err == nil && (what == swapped || what == finished) {
		l.files.forget(plain)
	}
	return nil
}

// maxRest bounds a pause, and so how long the end of a log waits for one.
const maxRest = 20 * time.Millisecond

// rests returns a function that pauses as long as the work since its last call took: half of one processor at most is taken.
func rests() func() {
	began := time.Now()
	return func() {
		time.Sleep(min(time.Since(began), maxRest))
		began = time.Now()
	}
}

// CompressOptions say what Compress does.
type CompressOptions struct {
	Compression
	Undo bool // make all segments plain again; nothing else counts then

	OnSegment  func(SegmentForm)       // called for each segment when it is done with; nil: not
	OnProgress func(done, total int64) // bytes of content, called often; nil: not
}

// SegmentForm is what Compress has made of a segment.
type SegmentForm struct {
	Number     uint32
	Changed    bool  // by this pass
	Codec      Codec // 0: it is plain
	PlainBytes int64 // size of its plain file
	DiskBytes  int64 // size of the file that is there
	Err        error // why it could not be changed
}

// Compress compresses the segments of a sealed run, or makes them plain again, and ends or clears up what an earlier pass has
// begun. The caller holds the instance's lock. A segment that cannot be changed, or that would hardly become smaller, stays as it
// is; the others are done nevertheless, and the error names all that failed. Readers need not know. When ctx ends, the segment that
// is being worked at stays as it was.
func Compress(ctx context.Context, fsys vfs.FS, dir string, o CompressOptions) ([]SegmentForm, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if !o.Undo && o.Codec == NoCodec {
		return nil, fmt.Errorf("%w: compress needs a codec", format.ErrInvalid)
	}
	run, err := sealedRun(fsys, dir)
	if err != nil {
		return nil, err
	}
	list, err := listSegments(fsys, dir)
	if err != nil {
		return nil, err
	}
	w := &swap{fsys: fsys, dir: dir, run: run}
	if err := w.sweep(); err != nil {
		return nil, err
	}
	total, before, done := int64(0), int64(0), int64(0)
	for _, ref := range list {
		n, _, _, _ := w.sizes(ref.number)
		total += n
	}
	w.step = func() error {
		if o.OnProgress != nil { // each MiB is met twice: when it is written, and when it is read back
			done = min(done+copyPiece/2, total)
			o.OnProgress(done, total)
		}
		return ctx.Err()
	}
	var forms []SegmentForm
	var failed []error
	for i, ref := range list {
		if err := ctx.Err(); err != nil {
			return forms, errors.Join(append(failed, err)...)
		}
		form := w.convert(ref.number, i < len(list)-o.KeepPlain, &o)
		if form.Err != nil {
			failed = append(failed, form.Err)
		}
		forms = append(forms, form)
		if o.OnSegment != nil {
			o.OnSegment(form)
		}
		before += form.PlainBytes
		done = before
	}
	return forms, errors.Join(failed...)
}

// convert brings one segment into the form that is wanted.
func (w *swap) convert(n uint32, due bool, o *CompressOptions) SegmentForm {
	form := SegmentForm{Number: n}
	what, err := unchanged, error(nil)
	switch {
	case o.Undo:
		what, err = w.restore(n)
	case due:
		what, err = w.compress(n, o.options())
	}
	form.Err = err
	form.Changed = err == nil && (what == swapped || what == finished)
	form.PlainBytes, form.DiskBytes, form.Codec, err = w.sizes(n)
	if form.Err == nil {
		form.Err = err
	}
	return form
}

// sealedRun returns the id of a run whose files nobody writes.
func sealedRun(fsys vfs.FS, dir string) (string, error) {
	if q, quarantined, _ := manifest.ReadQuarantine(fsys, dir); quarantined {
		return "", &format.Error{Path: dir, Offset: -1, Why: "it is kept as it was found: " + q.Reason, Err: format.ErrQuarantined}
	}
	m, _, err := manifest.Read(fsys, dir)
	if err != nil {
		return "", err
	}
	if !m.Status.Sealed() {
		return "", fmt.Errorf("%w: %s: %w: recover it first", format.ErrInvalid, dir, format.ErrNotSealed)
	}
	return m.Run, nil
}

// sweep removes the unfinished files of passes that died.
func (w *swap) sweep() error {
	names, err := w.fsys.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		name, isTmp := strings.CutSuffix(e.Name(), ".tmp")
		_, plain := segment.ParseFileName(name)
		_, packed := compressed.ParseFileName(name)
		if isTmp && (plain || packed) {
			if err := w.fsys.Remove(filepath.Join(w.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
