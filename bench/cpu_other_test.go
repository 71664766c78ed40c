//go:build !linux

package bench

// threadCPU is not known here.
func threadCPU() int64 { return 0 }
