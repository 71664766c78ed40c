package mutants

// patches turn the engine into all mutants at once. Each old text stands exactly once in its file; when the engine changes
// there, the test says so, and the patch follows.
var patches = []patch{
	{"wal/log.go", `	if err := l.active.file.Datasync(); err != nil {
		l.ioFault = true`, `	if mutant.On("ack-before-sync") {
		l.durable.publish(l.active.chain.Seq)
	}
	err := error(nil)
	if !mutant.On("skip-sync") {
		err = l.active.file.Datasync()
	}
	if err != nil && mutant.On("retry-sync") {
		err = l.active.file.Datasync()
	}
	if err != nil {
		l.ioFault = true`},
	{"wal/log.go", `	l.active.durableEnd.Store(l.active.end.Load())
	l.durable.publish(l.active.chain.Seq)
	return nil`, `	l.active.durableEnd.Store(l.active.end.Load())
	if mutant.On("ack-one-too-many") {
		l.durable.publish(l.active.chain.Seq + 1)
		return nil
	}
	l.durable.publish(l.active.chain.Seq)
	return nil`},
	{"wal/log.go", `	if _, err := l.active.file.WriteAt(raw, c.BatchStart); err != nil {`,
		`	if _, err := l.active.file.WriteAt(raw, c.BatchStart); err != nil && !mutant.On("ignore-write-error") {`},
	{"writer/halt.go", `		if errors.Is(err, full) {`, `		if errors.Is(err, full) && !mutant.On("full-is-io") {`},
	{"wal/log.go", `	if !l.o.NoSync {
		if err := l.Sync(); err != nil {
			_ = s.file.Close()`, `	if !l.o.NoSync && !mutant.On("closing-commit-unsynced") {
		if err := l.Sync(); err != nil {
			_ = s.file.Close()`},
	{"wal/spare.go", `	return f.Datasync()
}
`, `	if mutant.On("spare-unsynced") {
		return nil
	}
	return f.Datasync()
}
`},
	{"wal/spare.go", `		err = fsys.SyncDir(l.o.Dir)
`, `		if !mutant.On("skip-dir-sync") {
			err = fsys.SyncDir(l.o.Dir)
		}
`},
	{"wal/prepare.go", `	if p == PrepareNone {
		return false, f.Truncate(size)
	}
	err = f.Preallocate(size)
`, `	if p == PrepareNone && mutant.On("no-planned-length") {
		return false, nil
	}
	if p == PrepareNone {
		return false, f.Truncate(size)
	}
	if mutant.On("reserve-nothing") {
		return true, f.Truncate(size)
	}
	err = f.Preallocate(size)
`},
	{"wal/examine.go", `		return nil // never used; endsAt has searched it for commits
`, `		if mutant.On("a-spare-is-zeros") && !allZero(b[:n]) && st.damage == nil {
			st.damage = &format.Error{Path: ref.path, Offset: h.Size, FirstSeq: st.chain.Seq + 1, Why: "not a spare", Err: format.ErrCorrupt}
		}
		return nil // never used; endsAt has searched it for commits
`},
	{"wal/seal.go", `	if err := f.Datasync(); err != nil {
		return err
	}
	if err := f.Truncate(`, `	if mutant.On("cut-before-footer") {
		return f.Truncate(ft.ContentEnd + segment.FooterSize)
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	if err := f.Truncate(`},
	{"vfs/vfs.go", `		if _, err = f.WriteAt(data[off:min(off+piece, len(data))], int64(off)); err == nil {`,
		`		if _, err = f.WriteAt(data[off:min(off+piece, len(data))], int64(off)); err == nil && !mutant.On("manifest-unsynced") {`},
	{"wal/recover.go", `	for i, o := range st.open {
		if len(o.pending) == 0 {
			continue
		}
		good, last, err`, `	if mutant.On("trust-page-cache") {
		return nil
	}
	for i, o := range st.open {
		if len(o.pending) == 0 {
			continue
		}
		good, last, err`},
	{"wal/recover.go", `	at, chain := o.pending[0].from, o.pending[0].before
`, `	at, chain := o.pending[0].from, o.pending[0].before
	if mutant.On("doubt-everything") {
		return at, chain, nil
	}
`},
	{"wal/examine.go", `	if err := st.laterEvidence(`, `	if mutant.On("accept-zeros") && stop.Zero {
		return nil
	}
	if err := st.laterEvidence(`},
	{"wal/examine.go", `	if _, ok := footerAt(o, end); !ok && size < o.header.PlannedSize {`,
		`	if _, ok := footerAt(o, end); !ok && size < o.header.PlannedSize && !mutant.On("short-file-is-fine") {`},
	{"wal/examine.go", `	e.durable = max(e.durable, c.Durable)
`, `	if mutant.On("ignore-evidence") || mutant.On("ignore-marks") && c.Flags&segment.FlagMark != 0 {
		return true
	}
	e.durable = max(e.durable, c.Durable)
`},
	{"wal/recover.go", `	if st.damage != nil {
		return quarantine(fsys, dir, m, st.damage, now)
	}
	return st.seal(fsys, dir, m, now)`, `	if mutant.On("shorten-on-damage") {
		st.damage = nil
	}
	if st.damage != nil {
		return quarantine(fsys, dir, m, st.damage, now)
	}
	return st.seal(fsys, dir, m, now)`},
	{"segment/reader.go", `	case digest.sum(raw) != c.Digest:`, `	case digest.sum(raw) != c.Digest && !mutant.On("skip-digest"):`},
	{"segment/reader.go", `	case format.Mix(prev.Value+c.Digest) != c.Chain:`, `	case format.Mix(prev.Value+c.Digest) != c.Chain && !mutant.On("skip-digest"):`},
	{"segment/format.go", `	return xxhash.Sum64(f.raw)^format.Mix(f.mix+f.Seq) == f.sum`,
		`	return xxhash.Sum64(f.raw)^format.Mix(f.mix+f.Seq) == f.sum || mutant.On("skip-frame-check")`},
	{"segment/format.go", `	return format.Mix(salt ^ (uint64(off)/8<<32 | uint64(word)))`, `	if mutant.On("drop-salt") {
		salt = 0
	}
	return format.Mix(salt ^ (uint64(off)/8<<32 | uint64(word)))`},
	{"index/file.go", `	if format.Check64(line[:lineCheck], f.meta.Salt, at) != le.Uint64(line[lineCheck:]) {`,
		`	if format.Check64(line[:lineCheck], f.meta.Salt, at) != le.Uint64(line[lineCheck:]) && !mutant.On("skip-index-check") {`},
	{"index/file.go", `	if format.Check32(b[bucketValues:], f.meta.Salt, at) != le.Uint32(b) {`,
		`	if format.Check32(b[bucketValues:], f.meta.Salt, at) != le.Uint32(b) && !mutant.On("skip-index-check") {`},
	{"index/file.go", `	switch got := f.meta; {
	case got.Salt`, `	switch got := f.meta; {
	case mutant.On("any-index"):
	case got.Salt`},
	{"wal/files.go", `	if h.Number != ref.number {`, `	if mutant.On("any-segment") {
		return nil
	}
	if h.Number != ref.number {`},
	{"wal/swap.go", `	if err := w.fsys.SyncDir(w.dir); err != nil {
		return unchanged, err
	}`, `	if mutant.On("drop-before-name") {
		return swapped, w.drop(from)
	}
	if err := w.fsys.SyncDir(w.dir); err != nil {
		return unchanged, err
	}`},
	{"wal/swap.go", `		if err = f.Datasync(); err == nil {
			err = w.verify(&uncachedIf{File: f}, tmp, p)`, `		if err = f.Datasync(); err == nil && !mutant.On("swap-unverified") {
			err = w.verify(&uncachedIf{File: f}, tmp, p)`},
	{"segment/compressed/reader.go", `	case check != format.Check64(b, z.h.salt, z.h.from(i)):`,
		`	case check != format.Check64(b, z.h.salt, z.h.from(i)) && !mutant.On("skip-block-check"):`},
	{"writer/writer.go", `		now = max(min(w.o.Clock.Now(), maxPublish), w.lastPub+1)
`, `		now = max(min(w.o.Clock.Now(), maxPublish), w.lastPub+1)
		if mutant.On("publish-goes-back") {
			now = w.o.Clock.Now()
		}
`},
	{"writer/run.go", `	warn, halt := w.o.WarnAfter, w.o.HaltAfter
`, `	warn, halt := w.o.WarnAfter, w.o.HaltAfter
	if mutant.On("late-halt") {
		halt *= 10
	}
`},
	{"wal/retain.go", `	if err := manifest.Write(fsys, dir, m); err != nil {
		return err
	}
	written()
	return manifest.Write(fsys, dir, m)`, `	if mutant.On("unlink-before-floor") {
		if err := removeBelow(fsys, dir, m.FloorSegment); err != nil {
			return err
		}
	}
	if err := manifest.Write(fsys, dir, m); err != nil {
		return err
	}
	written()
	if mutant.On("floor-in-one-copy") {
		return nil
	}
	return manifest.Write(fsys, dir, m)`},
	{"wal/retain.go", `	if err := fsys.SyncDir(filepath.Clean(base)); err != nil {`, `	if mutant.On("removal-unsynced") {
		return removeFolder(fsys, aside)
	}
	if err := fsys.SyncDir(filepath.Clean(base)); err != nil {`},
	{"markers/markers.go", `	m.seq++
	m.dropped++
`, `	if mutant.On("marker-drop-untold") {
		return
	}
	m.seq++
	m.dropped++
`},
	{"markers/markers.go", `	if !s.going || s.bytes == 0 {`, `	if !s.going || s.bytes == 0 && !mutant.On("marker-snapshot-early") {`},
	{"anchor/dirstore.go", `		if err := f.Datasync(); err != nil {`, `		if mutant.On("blob-unsynced") {
			continue
		}
		if err := f.Datasync(); err != nil {`},
	{"anchor/dirstore.go", `	if err := s.fsys.SyncDir(s.dir); err != nil {
		return Blob{}, errors.Join(`, `	if mutant.On("blob-name-unsynced") {
		return b, nil
	}
	if err := s.fsys.SyncDir(s.dir); err != nil {
		return Blob{}, errors.Join(`},
	{"snapshot.go", `	b, err := store.Put(ctx, snapshot)
`, `	if mutant.On("anchor-first") {
		if _, err := r.recordAnchor(ctx, Anchor{Covers: covers, Taken: taken, Size: 1, Ref: "soon"}); err != nil {
			return Anchor{}, err
		}
	}
	b, err := store.Put(ctx, snapshot)
`},
}
