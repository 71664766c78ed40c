// Package drive puts a run's work into the hands of a test: nothing happens by itself, so that a seeded driver decides
// what comes when, and a failure is replayed from its seed. It is reachable from this module only.
package drive

import "context"

// Driver is what a driven run asks of its driver, and offers to it. It belongs to one goroutine.
type Driver struct {
	// Background receives each task that would get a goroutine of its own: to be run later, in any order, or never.
	Background func(task func())

	// Set by Open; see the methods of the same names of writer.Writer.
	Step func() (more bool, err error)
	Mark func() error
	Sync func() error
}

type key struct{}

// With returns a context that makes Open hand the run to d.
func With(ctx context.Context, d *Driver) context.Context { return context.WithValue(ctx, key{}, d) }

// From returns the driver that With has put into ctx, or nil.
func From(ctx context.Context) *Driver {
	d, _ := ctx.Value(key{}).(*Driver)
	return d
}
