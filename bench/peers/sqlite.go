package main

import (
	"database/sql"
	"errors"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

// sqliteStore keeps entries in a table by number, and ids in another: id and number are its primary key.
type sqliteStore struct{}

func (sqliteStore) name() string   { return "SQLite" }
func (sqliteStore) module() string { return "modernc.org/sqlite" }

func (sqliteStore) lacks(t task) (string, bool) {
	switch t {
	case group:
		return cannot("one transaction at a time, so callers do not share a sync")
	case alone, stream, keyed:
		return can("C compiled to Go; has no checksum of what has left its log")
	default:
		return can("C compiled to Go; has no checksum of what it reads")
	}
}

type sqliteLog struct {
	db                                  *sql.DB
	put, putID, one, first, all, newest *sql.Stmt
	seq                                 uint64
}

func (sqliteStore) open(dir string, _ options) (log, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "log.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-262144)&_pragma=mmap_size(4294967296)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	l := &sqliteLog{db: db}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return l, nil
}

func (l *sqliteLog) prepare() (err error) {
	for _, s := range []string{
		"CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
		"CREATE TABLE IF NOT EXISTS ids (id TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, seq)) WITHOUT ROWID",
	} {
		if _, err := l.db.Exec(s); err != nil {
			return err
		}
	}
	for text, stmt := range map[string]**sql.Stmt{
		"INSERT INTO log (seq, payload) VALUES (?, ?)":          &l.put,
		"INSERT INTO ids (id, seq) VALUES (?, ?)":               &l.putID,
		"SELECT payload FROM log WHERE seq = ?":                 &l.one,
		"SELECT seq FROM ids WHERE id = ? ORDER BY seq LIMIT 1": &l.first,
		"SELECT payload FROM log ORDER BY seq":                  &l.all,
		"SELECT coalesce(max(seq), 0) FROM log":                 &l.newest,
	} {
		if *stmt, err = l.db.Prepare(text); err != nil {
			return err
		}
	}
	l.seq, err = l.last()
	return err
}

func (l *sqliteLog) append(items []item) error {
	if len(items) == 1 && items[0].client == "" && items[0].venue == "" {
		l.seq++
		_, err := l.put.Exec(l.seq, items[0].payload)
		return err
	}
	tx, err := l.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	put, putID := tx.Stmt(l.put), tx.Stmt(l.putID)
	for i := range items {
		l.seq++
		if _, err := put.Exec(l.seq, items[i].payload); err != nil {
			return err
		}
		for _, id := range [...]string{items[i].client, items[i].venue} {
			if id == "" {
				continue
			}
			if _, err := putID.Exec(id, l.seq); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func (l *sqliteLog) flush() error { return nil }
func (l *sqliteLog) close() error { return l.db.Close() }

func (l *sqliteLog) last() (seq uint64, err error) {
	err = l.newest.QueryRow().Scan(&seq)
	return seq, err
}

func (l *sqliteLog) get(seq uint64, _ []byte) (p []byte, err error) {
	err = l.one.QueryRow(seq).Scan(&p)
	return p, err
}

func (l *sqliteLog) find(id string) (seq uint64, ok bool, err error) {
	err = l.first.QueryRow(id).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return seq, err == nil, err
}

func (l *sqliteLog) scan(f func(payload []byte) error) error {
	rows, err := l.all.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	var p sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&p); err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return rows.Err()
}
