//go:build linux

package real

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/writer"
	"golang.org/x/sys/unix"
)

// limits puts the process under the limits of its order.
func (o *order) limits() error {
	if o.Cgroup != "" {
		if err := os.WriteFile(filepath.Join(o.Cgroup, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
	}
	data := o.MaxData
	if data > 0 {
		mapped, err := mappedData()
		if err != nil {
			return err
		}
		data += mapped
	}
	for which, limit := range map[int]uint64{unix.RLIMIT_FSIZE: o.MaxFile, unix.RLIMIT_DATA: data} {
		if limit > 0 {
			if err := unix.Setrlimit(which, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
				return err
			}
		}
	}
	return nil
}

// mappedData is what counts against RLIMIT_DATA by now: mappings of this process alone that can be written.
func mappedData() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	var kib uint64
	_, text, _ := strings.Cut(string(status), "VmData:")
	_, err = fmt.Sscan(text, &kib)
	return kib << 10, err
}

// made is the entry with this id; everything in it follows from that.
func made(id uint64, big int) runlog.Draft {
	r := rand.New(rand.NewPCG(id, 3))
	payload := binary.LittleEndian.AppendUint64(nil, id)
	if id&failing != 0 {
		payload = append(payload, failMagic...)
	}
	least := len(payload)
	size := r.IntN(300)
	if r.IntN(20) == 0 {
		size = r.IntN(8 << 10)
	}
	if big > 0 {
		size = big
	}
	for len(payload) < size {
		payload = binary.LittleEndian.AppendUint64(payload, r.Uint64())
	}
	return runlog.Draft{
		Topic: fmt.Sprintf("orders.%d", id>>32&3), Type: "Order", TsInit: int64(id &^ failing), Payload: payload[:max(size, least)],
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprintf("O-%d", id)}},
	}
}

// failing marks the ids of entries that carry failMagic, by which a disk knows what not to write.
const failing = 1 << 62

var failMagic = []byte("this write fails")

// load is the child that writes: some goroutines that wait for each entry, and one that streams, until it is killed.
func load(o *order) error {
	if err := o.limits(); err != nil {
		return err
	}
	if o.Synchronous {
		runtime.LockOSThread() // strace counts the calls of each thread
	}
	var p *page
	if o.Page != "" {
		var err error
		if p, err = openPage(o.Page); err != nil {
			return err
		}
	}
	opts := o.options()
	var run *runlog.Run
	halted := make(chan struct{})
	opened := make(chan struct{})
	opts.OnWarn = func(w runlog.Warning) {
		switch w.Kind {
		case writer.WarnHousework:
			send(os.Stdout, recTrouble, 0, 0, 0, w.String())
		case writer.WarnStall:
			<-opened
			send(os.Stdout, recWarn, run.Durable(), 0, 0, string(w.Stage))
		}
	}
	opts.OnHalt = func(h *runlog.HaltError) {
		select {
		case <-opened:
			send(os.Stdout, recHalt, run.Durable(), uint64(errno(h)), uint64(h.StalledFor), string(h.Reason)+"\n"+h.Error())
		default:
		}
		close(halted)
	}
	_, _ = os.Lstat(beginMark)
	run, err := runlog.Open(context.Background(), opts)
	if err != nil {
		send(os.Stdout, recFailed, uint64(errno(err)), 0, 0, err.Error())
		return nil
	}
	close(opened)
	last, before := uint64(0), ""
	if all := run.Predecessors(); len(all) > 0 {
		last, before = all[len(all)-1].LastSeq, all[len(all)-1].Run
	}
	send(os.Stdout, recOpened, last, 0, p.now(), before+"\n"+run.ID())
	if o.Eat > 0 {
		go eat(o.Eat)
	}
	err = o.produce(run, p)
	if err == nil {
		err = run.Close(context.Background())
	}
	var h *runlog.HaltError
	switch {
	case errors.As(err, &h):
		<-halted
		o.say(run)
	case err != nil:
		send(os.Stdout, recFailed, uint64(errno(err)), 0, 0, err.Error())
	default:
		send(os.Stdout, recDone, 0, 0, 0, "")
	}
	return nil
}

// beginMark is a name that a child looks for, in vain, when it begins: strace shows it.
const beginMark = "/runlog-real-begins"

// produce submits entries until they are enough or one fails.
func (o *order) produce(run *runlog.Run, p *page) error {
	one := func(producer, n uint64) error {
		id := producer<<32 | n
		if o.Fail > 0 && n == o.Fail {
			p.arm()
			id |= failing
		}
		seq, err := run.Append(context.Background(), made(id, o.Big))
		if err == nil {
			send(os.Stdout, recAck, seq, id, p.now(), "")
			time.Sleep(o.Pace)
		}
		return err
	}
	if o.Synchronous {
		for n := uint64(0); o.Entries == 0 || n < o.Entries; n++ {
			if err := one(0, n); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, o.Producers+1)
	var wg sync.WaitGroup
	for producer := range o.Producers {
		wg.Go(func() {
			for n := uint64(0); errs[producer] == nil && (o.Entries == 0 || n < o.Entries); n++ {
				errs[producer] = one(producer, n)
			}
		})
	}
	wg.Go(func() { errs[o.Producers] = o.stream(run, p) })
	wg.Wait()
	return errors.Join(errs...)
}

// stream submits without waiting, and waits for each fiftieth entry.
func (o *order) stream(run *runlog.Run, p *page) error {
	var seqs, ids []uint64
	for n := uint64(0); o.Entries == 0 || n < o.Entries; n++ {
		id := o.Producers<<32 | n
		seq, err := run.Submit(made(id, o.Big))
		if err != nil {
			return err
		}
		if seqs, ids = append(seqs, seq), append(ids, id); n%50 == 49 || n+1 == o.Entries {
			if err := run.WaitDurable(context.Background(), seq); err != nil {
				return err
			}
			at := p.now()
			for i := range seqs {
				send(os.Stdout, recAck, seqs[i], ids[i], at, "")
			}
			seqs, ids = seqs[:0], ids[:0]
			time.Sleep(time.Duration(n%7)*time.Millisecond + o.Pace) // now and then an idle moment, so that there are marks
		}
	}
	return nil
}

const afterHalt = "after the halt" // a text of recWarn

// say waits for the parent's word, closes the run, and says what the durable watermark is after all.
func (o *order) say(run *runlog.Run) {
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	_ = run.Close(context.Background())
	send(os.Stdout, recWarn, run.Durable(), 0, 0, afterHalt)
	send(os.Stdout, recDone, 0, 0, 0, "")
}

func errno(err error) (no syscall.Errno) {
	errors.As(err, &no)
	return no
}
