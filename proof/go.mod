module github.com/runlog-io/runlog/proof

go 1.25.0

require (
	github.com/runlog-io/runlog v0.0.0
	golang.org/x/mod v0.37.0
)

require github.com/cespare/xxhash/v2 v2.3.0 // indirect
