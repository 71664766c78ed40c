//go:build linux && race

package real

// scanCap is off: the detector maps more than any cap that means something.
const scanCap = 0
