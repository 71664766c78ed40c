package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/runlog-io/runlog/examples/exchange/engine"
)

// The feed is what a child tells its parent, through a pipe: frames of a kind byte, a uvarint length and a body. What
// is in the pipe survives the child, so the parent gets all that was sent, and at the end perhaps a piece of a frame,
// which was not.
const (
	frameHello    = 'H' // JSON of hello, first
	frameMessage  = 'M' // uvarint run, uvarint seq, event
	frameProgress = 'P' // uvarint orders submitted
	frameSummary  = 'S' // JSON of summary, last
)

const (
	feedBuffer = 1 << 16
	maxFrame   = 1 << 20
)

// hello is sent when the child is ready for new commands.
type hello struct {
	Runs      []string // the chain, oldest first; the last one is the child's own
	Recovered engine.Counts
	Remade    int           // events that the torn end had lost
	Dropped   int64         // bytes of the torn end
	Open      time.Duration // runlog.Open: recovery of the log
	Snapshot  int64         // bytes; 0: none was used
	Passed    int           // newer snapshots that could not be used
	Restore   time.Duration // of the snapshot, the check of its SHA-256 included
	Replayed  uint64        // entries behind the snapshot
	Replay    time.Duration // of them
	Hashes    uint64        // recorded state hashes among them, all equal
	Skip      time.Duration // the flow's generator, to where the log ends
}

// summary is sent when the flow is at its end and the run is closed.
type summary struct {
	Counts  engine.Counts
	Hash    uint64
	Entries uint64        // captured by this child
	Flow    time.Duration // from the first capture until the last one was durable
	Close   time.Duration
	Submit  quantiles
	Capture quantiles
	Clock   quantiles
	Warned  warned
	Anchors int // snapshots begun
	Hashes  int // state hashes recorded
}

// quantiles is what is shown of a histogram.
type quantiles struct {
	N                   uint64
	P50, P99, P999, Max time.Duration
}

func quantilesOf(h *engine.Histogram) quantiles {
	return quantiles{h.Count(), h.Quantile(.5), h.Quantile(.99), h.Quantile(.999), h.Max()}
}

// feedWriter writes frames. The first error sticks: without its parent a child has nothing to do.
type feedWriter struct {
	w    io.Writer
	buf  []byte
	body []byte
	err  error
}

func (f *feedWriter) frame(kind byte, body []byte) {
	f.buf = append(f.buf, kind)
	f.buf = binary.AppendUvarint(f.buf, uint64(len(body)))
	f.buf = append(f.buf, body...)
	if len(f.buf) >= feedBuffer {
		f.flush()
	}
}

func (f *feedWriter) flush() {
	if f.err == nil && len(f.buf) > 0 {
		_, f.err = f.w.Write(f.buf)
	}
	f.buf = f.buf[:0]
}

func (f *feedWriter) message(m engine.Message) {
	f.body = binary.AppendUvarint(f.body[:0], uint64(m.Run))
	f.body = binary.AppendUvarint(f.body, m.Seq)
	f.body = engine.AppendEvent(f.body, &m.Event)
	f.frame(frameMessage, f.body)
}

func (f *feedWriter) progress(orders uint64) {
	f.body = binary.AppendUvarint(f.body[:0], orders)
	f.frame(frameProgress, f.body)
	f.flush()
}

func (f *feedWriter) json(kind byte, v any) {
	body, err := json.Marshal(v)
	if err != nil && f.err == nil {
		f.err = err
	}
	f.frame(kind, body)
	f.flush()
}

// feedReader reads frames.
type feedReader struct {
	r    *bufio.Reader
	body []byte
}

func newFeedReader(r io.Reader) *feedReader {
	return &feedReader{r: bufio.NewReaderSize(r, feedBuffer)}
}

// next returns a frame, valid until the next call. A piece of a frame at the end was never sent: it is io.EOF too.
func (f *feedReader) next() (kind byte, body []byte, err error) {
	if kind, err = f.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(f.r)
	if err == nil && n > maxFrame {
		return 0, nil, fmt.Errorf("feed: frame of %d bytes", n)
	}
	if err == nil {
		if uint64(cap(f.body)) < n {
			f.body = make([]byte, max(n, 512))
		}
		f.body = f.body[:n]
		_, err = io.ReadFull(f.r, f.body)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return kind, f.body, err
}

// decodeMessage reads the body of a message. The event's own bytes are returned as well, to be compared with the log's.
func decodeMessage(body []byte) (m engine.Message, event []byte, err error) {
	run, n := binary.Uvarint(body)
	if n <= 0 {
		return m, nil, errors.New("feed: bad message")
	}
	seq, k := binary.Uvarint(body[n:])
	if k <= 0 || run > 1<<20 {
		return m, nil, errors.New("feed: bad message")
	}
	m.Run, m.Seq = int(run), seq
	event = body[n+k:]
	if err := engine.DecodeEvent(event, &m.Event); err != nil {
		return m, nil, fmt.Errorf("feed: %w", err)
	}
	return m, event, nil
}
