//go:build linux && !race

package real

const scanCap = dataCap
