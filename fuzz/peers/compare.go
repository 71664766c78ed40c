package main

// load is one size of entries.
type load struct {
	title   string
	n, size int
}

var loads = []load{
	{"1,000 entries of 256 B", 1000, 256},
	{"200 entries of 40 KB", 200, 40_000},
	{"100 entries of 100 KB", 100, 100_000},
}

// column is what came of a store, by row.
type column struct {
	store    store
	trials   []*trial
	outcomes []outcome
}

// everyStore is the table's columns.
func everyStore() []store {
	return []store{
		raftWAL{}, tidwallWAL{}, rosedbWAL{}, etcdWAL{}, pebbleWAL{},
		runlogStore{title: "runlog", marked: true, segmentBytes: 4 << 20},
		runlogStore{title: "runlog, before the mark", segmentBytes: 4 << 20},
	}
}

// compare puts one store through the damages that all are put through.
func compare(s store, l load, tmp string) (column, error) {
	c := column{store: s}
	entries := payloads(0, l.n, l.size)
	entries = append(entries, random(uint64(l.n), max(l.size, block))) // torn between two sectors, as a disk does it
	im, err := original(s, tmp, entries[:l.n], 0)
	if err != nil {
		return c, err
	}
	if rs, ok := s.(runlogStore); ok {
		rs.marked = true // what is acknowledged has its mark; the entry more has not
		s = rs
	}
	torn, err := original(s, tmp, entries, 1)
	if err != nil {
		return c, err
	}
	if c.trials, err = comparison(s, im, torn, entries); err != nil {
		return c, err
	}
	c.trials = append([]*trial{{row: "none", im: im, harmless: true}}, c.trials...)
	c.outcomes = make([]outcome, len(c.trials))
	return c, each(len(c.trials), func(i int) (err error) {
		t := c.trials[i]
		var extra []byte
		if t.unacked {
			extra = entries[l.n]
		}
		c.outcomes[i], err = look(s, tmp, t, entries[:l.n], extra)
		return err
	})
}
