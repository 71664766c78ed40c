package main

import (
	"encoding/binary"
	"math/rand/v2"
)

// seed of everything random here: entries and garbage.
const seed = 0x72756e6c6f67

// later is how many entries are appended to a store after it was damaged and opened.
const later = 10

// random returns n bytes that no other stream has.
func random(stream uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, stream))
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	b = b[:n]
	b[n-1] |= 1 // so that a file's last zeros never belong to an entry
	return b
}

// payloads are n entries of size bytes, all different from each other and from those of another base.
func payloads(base, n, size int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = random(uint64(base+i), size)
	}
	return list
}
