module github.com/runlog-io/runlog/fuzz/real

go 1.25.0

require (
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/runlog-io/runlog v0.0.0
	golang.org/x/sys v0.45.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/edsrzf/mmap-go v1.2.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
)
