package capture_test

import (
	"testing"

	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
)

// HC1 to HC4 and G46: each type says itself where its headers come from. All values are distinct, so a swap is seen.
func TestHC1EachTypeHasItsOwnHeaders(t *testing.T) {
	type (
		request   struct{ id entry.ID }
		subscribe struct{ corr *entry.ID }
		response  struct{ corr entry.ID }
		fill      struct{ id, command, order entry.ID }
	)
	reg := newRegistry(t)
	must(t, capture.Register(reg, "request", empty[request], capture.WithHeaders(func(m request) capture.Headers {
		return capture.Headers{CorrelationID: m.id}
	})))
	must(t, capture.Register(reg, "subscribe", empty[subscribe]))
	must(t, capture.SetHeaders(reg, func(m subscribe) (h capture.Headers) {
		if m.corr != nil {
			h.CorrelationID = *m.corr
		}
		return h
	}))
	must(t, capture.Register(reg, "response", empty[response], capture.WithHeaders(func(m response) capture.Headers {
		return capture.Headers{CorrelationID: m.corr}
	})))
	must(t, capture.Register(reg, "fill", empty[fill],
		capture.WithIdentity(func(m fill) (entry.ID, bool) { return m.id, true }),
		capture.WithHeaders(func(m fill) capture.Headers {
			return capture.Headers{CorrelationID: m.order, CausationID: m.command}
		})))
	corr := id(5)
	var none entry.ID
	for i, c := range []struct {
		name            string
		m               any
		id, corr, cause entry.ID
	}{
		{"HC1 command", command{id: id(1), corr: id(2), cause: id(3)}, id(1), id(2), id(3)},
		{"HC2 request", request{id(4)}, none, id(4), none},
		{"HC3 subscribe", subscribe{&corr}, none, id(5), none},
		{"HC3 subscribe without", subscribe{}, none, none, none},
		{"HC4 response", response{id(6)}, none, id(6), none},
		{"HC5 report", report{command{corr: id(7), cause: id(8)}}, none, none, none},
		{"G46 event names its command", fill{id: id(9), command: id(1), order: id(2)}, id(9), id(2), id(1)},
	} {
		log := newLog()
		a := newAdapter(t, reg, log, capture.Options{})
		captured(t, a, "x", c.m, 1)
		if e := log.entries[0]; e.ID != c.id || e.CorrelationID != c.corr || e.CausationID != c.cause {
			t.Errorf("%d %s: entry %+v", i, c.name, e)
		}
	}
}

func empty[T any](dst []byte, _ T, _ *capture.Keys) ([]byte, error) { return dst, nil }
