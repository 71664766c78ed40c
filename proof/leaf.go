package proof

import (
	"encoding/binary"

	"github.com/runlog-io/runlog/entry"
)

// leafMagic starts every leaf. It holds the version of the encoding.
const leafMagic = "runlog leaf v1\n"

// Run names a run.
type Run struct {
	Instance string
	ID       string // run id
}

// AppendLeaf appends the leaf of an entry: all of the entry and whose it is, such that no two different entries, and no
// two entries of different runs, have the same leaf.
func AppendLeaf(dst []byte, run Run, e *entry.Entry) []byte {
	dst = append(dst, leafMagic...)
	dst = appendText(dst, run.Instance)
	dst = appendText(dst, run.ID)
	dst = binary.LittleEndian.AppendUint64(dst, e.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.TsInit))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.TsPublish))
	dst = appendText(dst, e.Topic)
	dst = appendText(dst, e.Type)
	dst = append(dst, e.ID[:]...)
	dst = append(dst, e.CorrelationID[:]...)
	dst = append(dst, e.CausationID[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.Keys)))
	for _, k := range e.Keys {
		dst = appendText(dst, k.Kind)
		dst = appendText(dst, k.Value)
	}
	return appendText(dst, e.Payload)
}

// appendText appends a length and the bytes.
func appendText[T string | []byte](dst []byte, s T) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}
