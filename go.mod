module github.com/runlog-io/runlog

go 1.25.0

require (
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/edsrzf/mmap-go v1.2.0
	github.com/klauspost/compress v1.20.3
	golang.org/x/sys v0.45.0
)
