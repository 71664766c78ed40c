module github.com/runlog-io/runlog/cmd/runlog

go 1.25.0

require (
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/klauspost/compress v1.20.3
	github.com/runlog-io/runlog v0.0.0
	github.com/runlog-io/runlog/proof v0.0.0
	github.com/spf13/cobra v1.10.2
	golang.org/x/mod v0.37.0
)

require (
	github.com/edsrzf/mmap-go v1.2.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	golang.org/x/sys v0.45.0 // indirect
)
