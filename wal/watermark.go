package wal

import (
	"context"
	"sync"
	"sync/atomic"
)

// Watermark is a seq that only grows. Reading it takes no lock. The zero value is ready to use.
type Watermark struct {
	v      atomic.Uint64
	subs   atomic.Pointer[[]chan<- struct{}] // replaced under mu
	mu     sync.Mutex
	closed chan struct{} // made when first needed; closed when no advance will come any more
	shut   bool
}

// Load returns the seq.
func (w *Watermark) Load() uint64 { return w.v.Load() }

// publish advances the watermark and tells the subscribers, without waiting for anybody.
func (w *Watermark) publish(seq uint64) {
	w.v.Store(seq)
	if subs := w.subs.Load(); subs != nil {
		for _, ch := range *subs {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}

// Notify sends on ch, without blocking, at each advance until stop is called; with a buffer of one, advances coalesce.
func (w *Watermark) Notify(ch chan<- struct{}) (stop func()) {
	change := func(edit func([]chan<- struct{}) []chan<- struct{}) {
		w.mu.Lock()
		defer w.mu.Unlock()
		var subs []chan<- struct{}
		if old := w.subs.Load(); old != nil {
			subs = append(subs, *old...)
		}
		if subs = edit(subs); len(subs) == 0 {
			w.subs.Store(nil)
		} else {
			w.subs.Store(&subs)
		}
	}
	change(func(s []chan<- struct{}) []chan<- struct{} { return append(s, ch) })
	var once sync.Once
	return func() {
		once.Do(func() {
			change(func(s []chan<- struct{}) []chan<- struct{} {
				for i := range s {
					if s[i] == ch {
						return append(s[:i], s[i+1:]...)
					}
				}
				return s
			})
		})
	}
}

// ended is closed when the watermark will not advance any more.
func (w *Watermark) ended() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed == nil {
		w.closed = make(chan struct{})
		if w.shut {
			close(w.closed)
		}
	}
	return w.closed
}

func (w *Watermark) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.shut && w.closed != nil {
		close(w.closed)
	}
	w.shut = true
}

// waitPast blocks until the watermark is above seq, it has ended, or ctx is done.
func (w *Watermark) waitPast(ctx context.Context, seq uint64) error {
	ch := make(chan struct{}, 1)
	stop := w.Notify(ch)
	defer stop()
	ended := w.ended()
	for w.Load() <= seq {
		select {
		case <-ch:
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// shutdown reports whether the watermark has ended.
func (w *Watermark) shutdown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shut
}
