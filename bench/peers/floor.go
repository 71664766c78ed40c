package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// floorStore is the least that does a task: frames with a CRC-32C in one file of zeros that are on the disk before the clock
// starts, written with one pwrite and synced with one fdatasync. Nothing survives more than the task asks for: no second file, no
// recovery worth the name.
type floorStore struct {
	atOnce bool // batches as large as runlog makes them; and one caller in place of many
}

const (
	floorFrame = 16 // CRC-32C of what follows, 24 bits of payload size, 8 of ids size, number
	floorLap   = 512 << 20
	floorMiB   = 1 << 20
)

func (s floorStore) name() string {
	if s.atOnce {
		return "floor, at once"
	}
	return "floor"
}

func (floorStore) module() string { return "" }

func (s floorStore) lacks(t task) (string, bool) {
	if s.atOnce {
		switch t {
		case group:
			return can("one goroutine, as many entries in each write as there are callers: nobody waits for anybody")
		case stream, keyed:
			return can("a MiB in each write, whatever the batch")
		default:
			return cannot("the same as floor")
		}
	}
	switch t {
	case group:
		return can("the least group commit: a buffer, one write, one sync and one wake-up for all in it")
	case find, keyed:
		return can("ids in a table in memory that an open rebuilds")
	case get, scan:
		return can("CRC-32C of each frame")
	case reopen:
		return can("reads and checks 64 MiB, the most that an active segment holds")
	default:
		return can("")
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type floorLog struct {
	f       *os.File
	atOnce  bool
	keyed   bool
	wraps   bool
	limit   int64
	buf     []byte
	off     int64
	seq     uint64
	offsets []int64 // of frames; those of the last lap if the file wraps
	first   uint64  // number of the frame that offsets begin with
	mapped  []byte
	ids     idTable

	mu    sync.Mutex  // guards batch and what it points to until its leader has taken it
	batch *floorBatch // the one that fills
}

func (s floorStore) open(dir string, o options) (log, error) {
	f, err := os.OpenFile(filepath.Join(dir, "floor"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	l := &floorLog{f: f, atOnce: s.atOnce, keyed: o.keyed, wraps: o.wraps, first: 1, batch: &floorBatch{before: closed}}
	if o.writes > 0 {
		err = l.zero(min(o.writes, floorLap))
	} else {
		err = l.load()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return l, nil
}

func (l *floorLog) zero(size int64) error {
	zeros := make([]byte, floorMiB)
	for l.limit < size {
		if _, err := l.f.WriteAt(zeros, l.limit); err != nil {
			return err
		}
		l.limit += floorMiB
	}
	return unix.Fdatasync(int(l.f.Fd()))
}

// load finds the frames that are there: those with rising numbers from the start of the file.
func (l *floorLog) load() error {
	info, err := l.f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	l.mapped, err = unix.Mmap(int(l.f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for l.off+floorFrame <= int64(len(l.mapped)) {
		payload, ids, seq, size := l.frame(l.off)
		if payload == nil || l.seq > 0 && seq != l.seq+1 {
			break
		}
		if l.seq == 0 {
			l.first = seq
		}
		l.note(l.off, seq, ids)
		l.off += size
	}
	return nil
}

func (l *floorLog) note(off int64, seq uint64, ids []byte) {
	l.seq = seq
	l.offsets = append(l.offsets, off)
	for len(ids) > 0 {
		n := int(ids[0])
		l.ids.insert(ids[1:1+n], seq)
		ids = ids[1+n:]
	}
}

// frame returns what stands at an offset, or no payload.
func (l *floorLog) frame(off int64) (payload, ids []byte, seq uint64, size int64) {
	b := l.mapped[off:]
	word := binary.LittleEndian.Uint32(b[4:])
	size = floorFrame + int64(word&0xffffff) + int64(word>>24)
	if word == 0 || size > int64(len(b)) || crc32.Checksum(b[4:size], castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, nil, 0, 0
	}
	at := floorFrame + int64(word>>24)
	return b[at:size], b[floorFrame:at], binary.LittleEndian.Uint64(b[8:]), size
}

func appendFrame(buf []byte, seq uint64, it *item) []byte {
	at := len(buf)
	ids := 0
	for _, id := range [...]string{it.client, it.venue} {
		if id != "" {
			ids += 1 + len(id)
		}
	}
	var head [floorFrame]byte
	binary.LittleEndian.PutUint32(head[4:], uint32(len(it.payload))|uint32(ids)<<24)
	binary.LittleEndian.PutUint64(head[8:], seq)
	buf = append(buf, head[:]...)
	for _, id := range [...]string{it.client, it.venue} {
		if id != "" {
			buf = append(append(buf, byte(len(id))), id...)
		}
	}
	buf = append(buf, it.payload...)
	binary.LittleEndian.PutUint32(buf[at:], crc32.Checksum(buf[at+4:], castagnoli))
	return buf
}

func (l *floorLog) append(items []item) error {
	for i := range items {
		at, seq := len(l.buf), l.seq+1
		l.buf = appendFrame(l.buf, seq, &items[i])
		word := binary.LittleEndian.Uint32(l.buf[at+4:])
		if l.keyed {
			l.note(l.off+int64(at), seq, l.buf[at+floorFrame:][:word>>24])
		}
		l.seq = seq
	}
	if l.atOnce && len(l.buf) < floorMiB {
		return nil
	}
	return l.flush()
}

func (l *floorLog) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	err := l.write(l.buf)
	l.buf = l.buf[:0]
	return err
}

func (l *floorLog) write(buf []byte) error {
	if l.off+int64(len(buf)) > l.limit && l.limit > 0 && l.wraps {
		l.off = 0
	}
	if _, err := l.f.WriteAt(buf, l.off); err != nil {
		return err
	}
	l.off += int64(len(buf))
	return unix.Fdatasync(int(l.f.Fd()))
}

// floorBatch holds the frames of callers that wait for the same sync.
type floorBatch struct {
	buf    []byte
	before chan struct{} // closed when the batch before is durable
	done   chan struct{} // closed when this one is
	err    error         // written before done is closed
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// appendOne adds to the batch that fills. Whoever comes first in it commits it, as soon as the batch before is durable.
func (l *floorLog) appendOne(payload []byte) error {
	l.mu.Lock()
	b := l.batch
	leads := b.done == nil
	if leads {
		b.done = make(chan struct{})
	}
	l.seq++
	b.buf = appendFrame(b.buf, l.seq, &item{payload: payload})
	l.mu.Unlock()
	if !leads {
		<-b.done
		return b.err
	}
	<-b.before
	l.mu.Lock()
	l.batch = &floorBatch{before: b.done, buf: make([]byte, 0, cap(b.buf))}
	l.mu.Unlock()
	b.err = l.write(b.buf)
	close(b.done)
	return b.err
}

func (l *floorLog) last() (uint64, error) { return l.seq, nil }

func (l *floorLog) get(seq uint64, buf []byte) ([]byte, error) {
	payload, _, got, _ := l.frame(l.offsets[seq-l.first])
	if payload == nil || got != seq {
		return nil, errOrder
	}
	return append(buf[:0], payload...), nil
}

func (l *floorLog) scan(f func(payload []byte) error) error {
	seq, off := l.first, int64(0)
	for ; off < l.off; seq++ {
		payload, _, got, size := l.frame(off)
		if payload == nil || got != seq {
			return errOrder
		}
		if err := f(payload); err != nil {
			return err
		}
		off += size
	}
	if seq != l.seq+1 {
		return fmt.Errorf("%w: %d entries, want %d", errOrder, seq-1, l.seq)
	}
	return nil
}

// find looks in the table, and believes the frame that it names.
func (l *floorLog) find(id string) (uint64, bool, error) {
	seq, ok := l.ids.find(id)
	if !ok {
		return 0, false, nil
	}
	payload, ids, _, _ := l.frame(l.offsets[seq-l.first])
	if payload == nil {
		return 0, false, errOrder
	}
	for len(ids) > 0 {
		n := int(ids[0])
		if text(ids[1:1+n]) == id {
			return seq, true, nil
		}
		ids = ids[1+n:]
	}
	return 0, false, nil
}

func (l *floorLog) close() error {
	err := l.flush()
	if l.mapped != nil {
		err = errors.Join(err, unix.Munmap(l.mapped))
	}
	return errors.Join(err, l.f.Close())
}

// verifyEnd is a floor's way to open: it checks the last bytes of the file, as many as an active segment has at most.
func (l *floorLog) verifyEnd(want int64) error {
	i := len(l.offsets)
	for i > 0 && l.off-l.offsets[i-1] <= want {
		i--
	}
	for ; i < len(l.offsets); i++ {
		if payload, _, _, _ := l.frame(l.offsets[i]); payload == nil {
			return errOrder
		}
	}
	return nil
}

// idTable is open addressing without pointers: the hash of an id, and the first entry that carries it.
type idTable struct {
	slots []idSlot
	used  int
}

type idSlot struct{ hash, seq uint64 }

func (t *idTable) insert(id []byte, seq uint64) {
	if 2*(t.used+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]idSlot, max(1024, 2*len(old)))
		for _, s := range old {
			if s.seq != 0 {
				*t.slot(s.hash) = s
			}
		}
	}
	h := hashOf(id)
	if s := t.slot(h); s.seq == 0 {
		*s = idSlot{h, seq}
		t.used++
	}
}

// slot returns the one that holds the hash, or would.
func (t *idTable) slot(hash uint64) *idSlot {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.seq == 0 || s.hash == hash {
			return s
		}
	}
}

func (t *idTable) find(id string) (uint64, bool) {
	if len(t.slots) == 0 {
		return 0, false
	}
	s := t.slot(hashOf(unsafe.Slice(unsafe.StringData(id), len(id))))
	return s.seq, s.seq != 0
}
