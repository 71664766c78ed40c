package index

import (
	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/internal/format"
)

// VerifyAll reads the whole file and reports the first byte that is not as Write would have left it: every piece with
// its check, that pieces, counts and order fit together, zero padding, and the sum at the end.
func (f *File) VerifyAll() error {
	if f.data == nil {
		return format.ErrClosed
	}
	return format.Guarded(f.path, f.verifyAll)
}

func (f *File) verifyAll() error {
	for _, check := range [...]func() error{f.verifySamples, f.verifyLists, f.verifyBuckets, f.verifyRest} {
		if err := check(); err != nil {
			return err
		}
	}
	at := f.s.trailerAt
	if xxhash.Sum64(f.data[:at]) != le.Uint64(f.data[at:]) {
		return corrupt(f.path, at, "sum of the file does not match")
	}
	return nil
}

func (f *File) verifySamples() error {
	samples := (f.s.entries + f.s.sampleEvery - 1) / f.s.sampleEvery
	last := int64(-1)
	for i := range samples {
		_, offset, err := f.Offset(f.bounds.FirstSeq + i*f.s.sampleEvery)
		if err != nil {
			return err
		}
		if offset <= last {
			return corrupt(f.path, f.s.samplesAt+int64(i/lineSamples)*lineSize, "sample %d is not behind the one before", i)
		}
		last = offset
	}
	if used := samples % lineSamples; used != 0 {
		line := f.s.bucketsAt - lineSize
		return f.verifyZero(line+int64(used)*4, line+lineCheck)
	}
	return nil
}

// verifyLists walks the posting lists, which must fill their section.
func (f *File) verifyLists() error {
	for rel := int64(0); rel < f.s.postingsSize; {
		if rel>>3 >= valueFree&^valueList {
			return corrupt(f.path, f.s.postingsAt, "section of the posting lists is too long")
		}
		list, at, err := f.list(valueList | uint32(rel>>3))
		if err != nil {
			return err
		}
		end := rel + listHead + int64(len(list))
		rel = format.Align8(end)
		if rel > f.s.postingsSize {
			return corrupt(f.path, at, "posting list ends outside of its section")
		}
		if err := f.verifyZero(f.s.postingsAt+end, f.s.postingsAt+rel); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) verifyBuckets() error {
	var keys, postings uint64
	listBytes := int64(0)
	var seqs []uint64
	for i := range f.s.buckets {
		b, err := f.bucket(i)
		if err != nil {
			return err
		}
		at, free := f.s.bucketsAt+int64(i)*bucketSize, false
		for j := range bucketSlots {
			value := le.Uint32(b[bucketValues+4*j:])
			if value == valueFree {
				free = true
				if slotTag(b, j) != 0 {
					return corrupt(f.path, at, "free slot %d has a tag", j)
				}
				continue
			}
			if free {
				return corrupt(f.path, at, "slot %d is used behind a free one", j)
			}
			if seqs, err = f.appendAll(seqs[:0], value); err != nil {
				return err
			}
			keys++
			postings += uint64(len(seqs))
			if value&valueList != 0 {
				list, _, _ := f.list(value)
				listBytes += format.Align8(listHead + int64(len(list)))
			}
		}
	}
	if keys != f.keys || postings != f.postings {
		return corrupt(f.path, hdrKeys, "%d keys with %d postings, want %d with %d", keys, postings, f.keys, f.postings)
	}
	if listBytes != f.s.postingsSize {
		return corrupt(f.path, f.s.postingsAt, "keys use %d bytes of posting lists out of %d", listBytes, f.s.postingsSize)
	}
	return nil
}

// verifyRest verifies the dictionary's check once more, the notes, and all padding that is not between lists or samples.
func (f *File) verifyRest() error {
	end := f.s.dictAt + f.s.dictSize
	if format.Check64(f.data[f.s.dictAt:end-trailerSize], f.meta.Salt, f.s.dictAt) != le.Uint64(f.data[end-trailerSize:]) {
		return corrupt(f.path, f.s.dictAt, "check of the dictionary does not match")
	}
	notesEnd := f.s.notesAt + f.s.notesSize
	if _, err := f.Notes(); err != nil {
		return err
	}
	for _, gap := range [...][2]int64{
		{hdrEnd, headerSize}, {f.s.postingsAt + f.s.postingsSize, f.s.dictAt}, {end, f.s.notesAt}, {notesEnd, f.s.trailerAt},
	} {
		if err := f.verifyZero(gap[0], gap[1]); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) verifyZero(from, to int64) error {
	for at := from; at < to; at++ {
		if f.data[at] != 0 {
			return corrupt(f.path, at, "padding is not zero")
		}
	}
	return nil
}
