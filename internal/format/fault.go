package format

import (
	"runtime"
	"runtime/debug"
)

// Guarded calls use and turns a fault in mapped memory into an error that wraps ErrMappingLost: the file was cut short, or
// the medium does not give the bytes. Other panics go on. The cost is that of two calls into the runtime, so it is for
// work on a whole file and not for look-ups; those are guarded by their callers, once for many.
func Guarded(path string, use func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		Rescue(recover(), path, &err)
	}()
	return use()
}

// Rescue turns a fault in mapped memory into an error. It is called with recover()'s value from a deferred function, while
// debug.SetPanicOnFault is on; other panics go on.
func Rescue(r any, path string, err *error) {
	if r == nil {
		return
	}
	if _, ok := r.(runtime.Error); ok {
		if _, fault := r.(interface{ Addr() uintptr }); fault {
			*err = &Error{Path: path, Offset: -1, Why: "the file was cut short while it was mapped, or the medium does not give its bytes", Err: ErrMappingLost}
			return
		}
	}
	panic(r)
}
