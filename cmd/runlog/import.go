package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
)

// maxLine bounds a line: the largest payload with every byte escaped, and the rest of the entry.
const maxLine = 64 << 20

// importedJSON is import --json.
type importedJSON struct {
	Dir     string `json:"dir"`
	Run     string `json:"run"`
	Entries uint64 `json:"entries"`
}

func (a *app) importCmd() *cobra.Command {
	o := runlog.Options{}
	var labels []string
	cmd := &cobra.Command{
		Use: "import DIR --instance I FILE", Short: "Make a run out of JSON lines",
		Long: `import reads JSON lines as export prints them, from FILE or, for -, from stdin; zstd is recognized. It makes a finished run of the
instance under the base folder DIR and prints its directory as the last line. The run is built aside and appears when it is sealed: after
an error nothing is left behind. It is no parent of an engine's run, unless that names it (Options.ContinueFrom).

Each line needs topic, type and ts_init. seq is ignored; ts_publish is kept if given, and must then increase. Key kinds are declared as they
are met. A line that is malformed or over a limit ends the import with its number; the exit code is 1.`,
		Example: `  runlog import runs --instance backtest day.jsonl
  zstd -dc day.jsonl.zst | runlog import runs --instance backtest -
  runlog export runs/demo/2026* | runlog import copy --instance demo --label source=demo -`,
		Args: exactly("DIR", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("instance") {
				return fmt.Errorf("--instance is missing: the name that the run belongs to")
			}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok {
					return fmt.Errorf("--label %q: want KEY=VALUE", l)
				}
				if o.Labels == nil {
					o.Labels = map[string]string{}
				}
				o.Labels[k] = v
			}
			if err := mayHoldInstances(args[0]); err != nil {
				return err
			}
			o.Dir = args[0]
			return a.importFile(o, args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Instance, "instance", "", "instance that the run belongs to (required)")
	f.StringVar(&o.Build, "build", "", "build to note in the manifest")
	f.StringVar(&o.SchemaVersion, "schema-version", "", "schema version to note in the manifest")
	f.StringVar(&o.ConfigHash, "config-hash", "", "configuration hash to note in the manifest")
	f.StringArrayVar(&labels, "label", nil, "`KEY=VALUE` to note in the manifest; may be repeated")
	return cmd
}

// mayHoldInstances refuses what is no base folder but part of one: an import would put folders into a finished run, or a
// run where nobody looks for it. A folder that is empty, foreign or not there yet may become a base.
func mayHoldInstances(dir string) error {
	kind, err := classify(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case kind == isRun || kind == isInst:
		return notBase(dir, kind)
	}
	return nil
}

func (a *app) importFile(o runlog.Options, file string) (err error) {
	src := &source{r: a.stdin, name: "stdin"}
	if file != "-" {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("%s: is a folder, want a file of JSON lines", file)
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		src.r, src.name = f, file
	}
	lines, err := newLines(a.ctx, src)
	if err != nil {
		return err
	}
	defer lines.close()
	o.MaxPayload = entry.MaxPayload // whatever a run may hold can come back
	undo := missingFolders(filepath.Join(o.Dir, o.Instance))
	im, err := runlog.NewImport(o)
	if err != nil {
		undo()
		return err
	}
	n, err := a.feed(im, lines)
	if err != nil {
		err = errors.Join(err, im.Abort())
		undo()
		return err
	}
	dir, err := im.Finish(a.ctx)
	if err != nil {
		undo()
		return err
	}
	if a.json {
		return a.printJSON(importedJSON{Dir: dir, Run: filepath.Base(dir), Entries: n})
	}
	a.out.line("%s", dir)
	return nil
}

// missingFolders returns what removes those of the path's folders that are not there now, if they are empty then.
func missingFolders(dir string) func() {
	var made []string
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		made = append(made, dir)
	}
	return func() {
		for _, d := range made {
			_ = os.Remove(d)
		}
	}
}

// feed adds all lines.
func (a *app) feed(im *runlog.Import, l *lines) (n uint64, err error) {
	p := a.newProgress()
	defer p.end()
	var d decoder
	declared := map[string]bool{entry.ClientOrderID: true, entry.VenueOrderID: true}
	for {
		line, err := l.next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		dr, err := d.line(line)
		if err == nil {
			err = add(im, dr, declared)
		}
		if err != nil {
			err = fmt.Errorf("%s: line %d: %w", l.src.name, l.number, err)
			var syntax *syntaxError
			if errors.As(err, &syntax) || errors.Is(err, runlog.ErrInvalid) {
				err = badData{err}
			}
			return n, err
		}
		if n++; n%1024 == 0 {
			if err := a.ctx.Err(); err != nil {
				return n, fmt.Errorf("interrupted at line %d: %w", l.number, err)
			}
			p.show(func() string { return fmt.Sprintf("%s entries, %s read", count(n), size(l.src.n)) })
		}
	}
}

func add(im *runlog.Import, dr runlog.Draft, declared map[string]bool) error {
	for i := range dr.Keys {
		kind := dr.Keys[i].Kind
		if declared[kind] {
			continue
		}
		if err := im.DeclareKind(kind); err != nil {
			return err
		}
		declared[kind] = true
	}
	if strings.HasPrefix(dr.Topic, entry.LifecyclePrefix) {
		return fmt.Errorf("%w: topic %q: runlog writes lifecycle entries itself; export without --lifecycle", runlog.ErrInvalid, dr.Topic)
	}
	return im.Add(dr)
}

// source counts what is read, and tells errors of reading from errors of what is read.
type source struct {
	r    io.Reader
	name string
	n    int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// lines reads lines of any length up to maxLine.
type lines struct {
	src    *source
	r      *bufio.Reader
	zr     *zstd.Decoder
	number int // of the line that next has returned, from 1
	long   []byte
}

var (
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	skipMagic = []byte{0x2a, 0x4d, 0x18} // behind 0x50 to 0x5f: a frame to be skipped, which may come first
)

func newLines(ctx context.Context, src *source) (*lines, error) {
	in := bufio.NewReaderSize(untilDone(ctx, src), 256<<10)
	l := &lines{src: src, r: in}
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", src.name, err)
	}
	if bytes.Equal(head, zstdMagic) || len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], skipMagic) {
		if l.zr, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(512<<20)); err != nil {
			return nil, err
		}
		l.r = bufio.NewReaderSize(l.zr, 256<<10)
	}
	return l, nil
}

func (l *lines) close() {
	if l.zr != nil {
		l.zr.Close()
	}
}

// next returns the next line, without its end, valid until the next call. io.EOF: there is none.
func (l *lines) next() ([]byte, error) {
	l.number++
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			if l.long = append(l.long, b...); len(l.long) > maxLine {
				return nil, badData{fmt.Errorf("%s: line %d: longer than %d bytes", l.src.name, l.number, maxLine)}
			}
			b, err = l.r.ReadSlice('\n')
		}
		l.long = append(l.long, b...)
		b = l.long
	}
	switch {
	case err == nil:
		return b[:len(b)-1], nil
	case err == io.EOF && len(b) > 0:
		return b, nil
	case err == io.EOF:
		return nil, err
	}
	err = fmt.Errorf("%s: line %d: %w", l.src.name, l.number, err)
	if l.src.err == nil && l.zr != nil && !errors.Is(err, context.Canceled) {
		return nil, badData{err}
	}
	return nil, err
}

// untilDone reads from r until ctx is done, even if a read blocks.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	if ctx.Done() == nil {
		return r
	}
	pr, pw := io.Pipe()
	stop := context.AfterFunc(ctx, func() { pw.CloseWithError(fmt.Errorf("interrupted: %w", ctx.Err())) })
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		stop()
		pw.CloseWithError(err)
	}()
	return pr
}
