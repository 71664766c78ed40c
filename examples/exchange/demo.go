package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/engine"
)

// message is what the parent remembers of a message: enough to find it in the log, and to see whether it is the same
// there.
type message struct {
	seq uint64
	sum uint64 // XXH64 of the event
	run int    // place in session.ids
}

// life is what the parent learns about one order, to choose one that is worth showing.
type life struct {
	events, fills, modifies uint8
	firstRun, lastRun       uint8
}

// session is the parent's account of one instance, over all its children.
type session struct {
	c        *config
	dir      string
	instance string
	messages []message // number n is messages[n-1]
	ids      []string  // of the runs that messages name
	lives    []life    // by client order id; nil if nobody wants to know
	hellos   []hello
	gaps     []time.Duration // from a kill until the next child was ready
	killedAt []uint64        // orders submitted, as far as the parent had heard
	summary  summary
}

// demo is the whole demonstration.
func (c *config) demo(ctx context.Context, dir string) error {
	began := time.Now()
	crashed := &session{c: c, dir: dir, instance: instance, lives: []life{{}}}
	var killed time.Time
	for i := range c.kills + 1 {
		killAt := uint64(0)
		if i < c.kills {
			killAt = c.killPoint(i)
		}
		at, err := crashed.child(ctx, fmt.Sprintf("life %d of %d", i+1, c.kills+1), killAt, killed)
		if err != nil {
			return err
		}
		killed = at
	}
	whole := &session{c: c, dir: dir, instance: uninterrupted}
	if _, err := whole.child(ctx, "uninterrupted", 0, time.Time{}); err != nil {
		return err
	}
	c.shown = time.Time{}
	c.status("checking the log")
	var checks [2]checked
	var errs [2]error
	var wg sync.WaitGroup
	for i, s := range []*session{crashed, whole} {
		wg.Go(func() { checks[i], errs[i] = s.check(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	c.status("")
	return c.report(crashed, whole, checks[0], checks[1], began)
}

// killPoint gives the number of orders at which child i is killed: in the middle, and somewhere else with each seed.
func (c *config) killPoint(i int) uint64 {
	x := (c.seed+1)*0x9e3779b97f4a7c15 + uint64(i)*0xd1342543de82ef95
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	jitter := float64(x>>11)/(1<<53)*0.6 - 0.3
	return max(1, uint64((float64(i+1)+jitter)/float64(c.kills+1)*float64(c.orders)))
}

// child runs one child to its end, or kills it once it has submitted killAt orders. It returns when it did.
func (s *session) child(
	ctx context.Context, what string, killAt uint64, before time.Time,
) (killed time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, err := s.c.child(ctx, "run", "--feed", "--dir", s.dir, "--instance", s.instance,
		"--seed", strconv.FormatUint(s.c.seed, 10), "--orders", strconv.FormatUint(s.c.orders, 10),
		"--ack", strconv.Itoa(len(s.messages)))
	if err != nil {
		return killed, err
	}
	cmd.Stderr = s.c.stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return killed, err
	}
	if err := cmd.Start(); err != nil {
		return killed, err
	}
	done := false
	var heard uint64
	feedErr := s.listen(newFeedReader(pipe), func(h *hello) {
		if !before.IsZero() {
			s.gaps = append(s.gaps, time.Since(before))
		}
		s.hellos = append(s.hellos, *h)
	}, func(orders uint64) {
		heard = orders
		s.c.status("%s: %s of %s orders, %s messages received", what, count(orders), count(s.c.orders),
			count(uint64(len(s.messages))))
		if killAt > 0 && orders >= killAt && killed.IsZero() {
			killed = time.Now()
			_ = cmd.Process.Kill() // SIGKILL; it may have come to its end by itself
			s.killedAt = append(s.killedAt, orders)
		}
	}, func() { done = true })
	s.c.status("")
	if feedErr != nil {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil && feedErr == nil:
		return killed, ctx.Err()
	case feedErr != nil:
		return killed, errors.Join(feedErr, err)
	case killAt > 0 && !killed.IsZero() && !done:
		return killed, nil // as intended
	case err != nil:
		return killed, fmt.Errorf("the child failed after %s orders: %w", count(heard), err)
	case killAt > 0:
		return killed, errors.New("the child was too fast to be killed: take more --orders")
	case !done:
		return killed, errors.New("the child ended without a summary")
	}
	return killed, nil
}

// listen reads a child's feed until it ends.
func (s *session) listen(f *feedReader, ready func(*hello), progress func(uint64), done func()) error {
	var runs []int           // place in ids of each run that the child names by its number; nil until it has said hello
	first := len(s.messages) // that comes from this child
	for {
		kind, body, err := f.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameHello:
			var h hello
			if err := json.Unmarshal(body, &h); err != nil {
				return err
			}
			for _, id := range h.Runs {
				runs = append(runs, s.place(id))
			}
			for i := first; i < len(s.messages); i++ {
				m := &s.messages[i]
				if m.run >= len(runs) {
					return fmt.Errorf("%w: message %d is of run %d, and there are %d", errNo, i+1, m.run, len(runs))
				}
				m.run = runs[m.run]
			}
			ready(&h)
		case frameMessage:
			m, event, err := decodeMessage(body)
			if err != nil {
				return err
			}
			if n := uint64(len(s.messages)) + 1; m.N != n {
				return fmt.Errorf("%w: message %d came after message %d", errNo, m.N, n-1)
			}
			at := m.Run
			if runs != nil {
				if m.Run != len(runs)-1 {
					return fmt.Errorf("%w: message %d of run %d, the child writes run %d", errNo, m.N, m.Run, len(runs)-1)
				}
				at = runs[m.Run]
			}
			s.messages = append(s.messages, message{m.Seq, xxhash.Sum64(event), at})
			s.remember(&m)
		case frameProgress:
			orders, _ := binary.Uvarint(body)
			progress(orders)
		case frameSummary:
			if err := json.Unmarshal(body, &s.summary); err != nil {
				return err
			}
			done()
		default:
			return fmt.Errorf("feed: unknown frame %q", kind)
		}
	}
}

// place is where a run's id stands in ids. A child numbers the runs that it continues; one that was killed before it held an entry
// is not among them.
func (s *session) place(id string) int {
	if i := slices.Index(s.ids, id); i >= 0 {
		return i
	}
	s.ids = append(s.ids, id)
	return len(s.ids) - 1
}

// remember keeps account of an order's life.
func (s *session) remember(m *engine.Message) {
	if s.lives == nil || m.Order > s.c.orders {
		return
	}
	for m.Order >= uint64(len(s.lives)) {
		s.lives = append(s.lives, life{})
	}
	l := &s.lives[m.Order]
	if l.events == 0 {
		l.firstRun = uint8(m.Run)
	}
	l.lastRun = uint8(m.Run)
	inc := func(n *uint8) { *n += min(1, 255-*n) }
	inc(&l.events)
	switch m.Kind {
	case book.Filled:
		inc(&l.fills)
	case book.Modified:
		inc(&l.modifies)
	}
}

// interesting chooses an order with fills and modifies, not too long, and if possible one that lived through a crash.
func (s *session) interesting() (order uint64) {
	best := -1
	for id, l := range s.lives {
		score := int(min(l.fills, 3)) + int(min(l.modifies, 3))
		if l.fills > 0 && l.modifies > 0 {
			score += 10
		}
		if l.events > 8 || l.events == 0 {
			score = 0
		}
		if l.firstRun != l.lastRun {
			score += 6 * min(score, 1)
		}
		if score > best {
			best, order = score, uint64(id)
		}
	}
	return order
}
