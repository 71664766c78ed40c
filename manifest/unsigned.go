package manifest

import "crypto/sha256"

// UnsignedDigest is what a signature of a manifest vouches for: the SHA-256 of the manifest file as it is without its
// signature. It is the same before and after signing.
func UnsignedDigest(m Manifest) ([sha256.Size]byte, error) {
	m.Signature = ""
	b, err := Encode(m)
	return sha256.Sum256(b), err
}
