package entry

import "sync/atomic"

// Route is a pair of topic and payload type. Routes repeat, so a segment stores each one once.
type Route struct {
	Topic string
	Type  string
}

// Dict resolves what a segment's entries refer to: routes, key kinds and the base time. It grows while its segment is
// being written: one goroutine adds, any number read; additions are published atomically.
type Dict struct {
	BaseTime int64 // set before the Dict is shared

	routes atomic.Pointer[[]Route] // index 0 is unused
	kinds  atomic.Pointer[Kinds]
}

// NewDict returns an empty dictionary.
func NewDict(baseTime int64) *Dict {
	d := &Dict{BaseTime: baseTime}
	d.routes.Store(&[]Route{{}})
	d.kinds.Store(&Kinds{})
	return d
}

// SetRoute defines a route. Only one goroutine may call it.
func (d *Dict) SetRoute(no uint32, r Route) {
	old := *d.routes.Load()
	routes := old
	for uint32(len(routes)) <= no {
		routes = append(routes, Route{}) // readers keep the old header; the shared array only grows behind its end
	}
	if uint32(len(old)) > no { // redefinition: readers may be looking at this slot
		routes = append([]Route(nil), routes...)
	}
	routes[no] = r
	d.routes.Store(&routes)
}

// Route returns a route; ok is false if it is not defined.
func (d *Dict) Route(no uint32) (r Route, ok bool) {
	routes := *d.routes.Load()
	if no == 0 || uint32(len(routes)) <= no {
		return Route{}, false
	}
	r = routes[no]
	return r, r.Topic != ""
}

// Routes returns all routes, indexed by number; undefined ones are zero. The slice must not be changed.
func (d *Dict) Routes() []Route { return *d.routes.Load() }

// Kinds returns the key kinds known so far.
func (d *Dict) Kinds() *Kinds { return d.kinds.Load() }

// SetKinds replaces the key kinds.
func (d *Dict) SetKinds(k *Kinds) { d.kinds.Store(k) }
