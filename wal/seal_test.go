package wal

import (
	"runtime"
	"testing"
	"weak"
)

// A segment that waited among others for its seal takes megabytes while it is indexed in memory.
func TestASealedSegmentLeavesNoMemoryBehind(t *testing.T) {
	var tasks []func()
	g := newRig(t, func(o *Options) {
		o.Inline = false
		o.Background = func(task func()) { tasks = append(tasks, task) }
	})
	var open []weak.Pointer[openSeg]
	for len(open) < 4 {
		if o := g.log.active; len(open) == 0 || open[len(open)-1].Value() != o {
			open = append(open, weak.Make(o))
		}
		g.fill(1, 900)
	}
	for _, task := range tasks {
		task()
	}
	for range 3 { // files have finalizers, which take a collection more
		runtime.GC()
	}
	for i, o := range open[:2] {
		if o.Value() != nil {
			t.Errorf("segment %d is sealed and still in memory", i+1)
		}
	}
	runtime.KeepAlive(g)
}
