package index

import (
	"testing"
)

// benchKeys is about what a segment of 64 MiB holds.
const benchKeys = 300000

func benchModel(b *testing.B) *model {
	m := newModel(1)
	for i := range benchKeys {
		m.add(1, order(i), order(i/4)) // some with posting lists
	}
	b.ResetTimer()
	return m
}

// BenchmarkBuilderAddKey adds new keys, growth included, and starts afresh after as many as a segment holds.
func BenchmarkBuilderAddKey(b *testing.B) {
	for _, bc := range []struct {
		name    string
		reserve int
	}{{"growing", 0}, {"reserved", benchKeys}} {
		b.Run(bc.name, func(b *testing.B) {
			fps := make([]uint64, benchKeys)
			for i := range fps {
				fps[i] = order(i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var x *Builder
			for i := range b.N {
				k := i % benchKeys
				if k == 0 {
					x = NewBuilder(1)
					x.Reserve(bc.reserve)
				}
				x.AddEntry(uint64(k+1), int64(k)*8)
				x.AddKey(fps[k], uint64(k+1))
			}
		})
	}
}

func BenchmarkBuilderFirst(b *testing.B) {
	m, fps := benchModel(b), fingerprints(0)
	b.ResetTimer()
	for i := range b.N {
		if _, ok := m.b.First(fps[i&(len(fps)-1)], 1<<63); !ok {
			b.Fatal("not found")
		}
	}
}

// fingerprints of keys that exist, or not, in random order, so that hashing is not measured.
func fingerprints(from int) []uint64 {
	fps := make([]uint64, 1<<16)
	rnd := uint64(1)
	for i := range fps {
		rnd = rnd*6364136223846793005 + 1442695040888963407
		fps[i] = order(from + int(rnd>>33)%benchKeys)
	}
	return fps
}

func benchFirst(b *testing.B, from int, want bool) {
	f := benchModel(b).open(b)
	fps := fingerprints(from)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, ok, err := f.First(fps[i&(len(fps)-1)]); ok != want || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkFileFirstHit(b *testing.B)  { benchFirst(b, 0, true) }
func BenchmarkFileFirstMiss(b *testing.B) { benchFirst(b, benchKeys, false) }

func BenchmarkFileOffset(b *testing.B) {
	f := benchModel(b).open(b)
	b.ResetTimer()
	for i := range b.N {
		if _, _, err := f.Offset(1 + uint64(i)*7919%benchKeys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFilterMiss(b *testing.B) {
	files, _, salts := openFiles(b, 1, 4, benchKeys)
	fsys := newMemFS()
	if err := BuildFilter(fsys, "", 1, 4, files); err != nil {
		b.Fatal(err)
	}
	f, err := OpenFilter(fsys, FilterName(1, 4), FilterWant{1, 4, ChainSalts(salts...)})
	if err != nil {
		b.Fatal(err)
	}
	fps := fingerprints(4 * benchKeys)
	pass := 0
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		ok, err := f.MayContain(fps[i&(len(fps)-1)])
		if err != nil {
			b.Fatal(err)
		}
		if ok {
			pass++
		}
	}
	b.ReportMetric(100*float64(pass)/float64(b.N), "%pass")
}

func BenchmarkBuildFilter(b *testing.B) {
	files, _, _ := openFiles(b, 1, 4, benchKeys)
	b.ResetTimer()
	for range b.N {
		if err := BuildFilter(newMemFS(), "", 1, 4, files); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(4*benchKeys), "ns/key")
}

func BenchmarkEncode(b *testing.B) {
	m := benchModel(b)
	size := 0
	for range b.N {
		size = len(m.encode(b))
	}
	b.ReportMetric(float64(m.b.Bytes())/benchKeys, "mem-B/entry")
	b.ReportMetric(float64(size)/benchKeys, "file-B/entry")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchKeys, "ns/key")
}

func BenchmarkOpen(b *testing.B) {
	m := benchModel(b)
	fsys := withFile(m.encode(b))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := Open(fsys, "x", m.meta); err != nil {
			b.Fatal(err)
		}
	}
}
