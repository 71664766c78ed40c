package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsStore is a stream of one replica in an embedded server that syncs every message, over a connection inside the process.
type natsStore struct{}

func (natsStore) name() string   { return "NATS" }
func (natsStore) module() string { return "github.com/nats-io/nats-server/v2" }

func (natsStore) lacks(t task) (string, bool) {
	switch t {
	case stream:
		return can("syncs each message singly, so a batch is as many syncs; speaks a protocol")
	case keyed, find:
		return cannot("has no order ids")
	case get, scan:
		return can("speaks a protocol; filled without syncs")
	case reopen, disk:
		return can("filled without syncs")
	default:
		return can("syncs each message singly; speaks a protocol")
	}
}

type natsLog struct {
	s      *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	acks   []jetstream.PubAckFuture
}

const (
	natsName  = "log"
	natsReady = 2 * time.Minute
)

func (natsStore) open(dir string, o options) (log, error) {
	s, err := server.NewServer(&server.Options{
		DontListen: true, NoLog: true, NoSigs: true, JetStream: true, SyncAlways: !o.loose, SyncInterval: time.Hour,
		StoreDir: filepath.Join(dir, "nats"), JetStreamMaxStore: 1 << 40, JetStreamMaxMemory: 1 << 30,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(natsReady) {
		return nil, errors.New("NATS does not come up")
	}
	l := &natsLog{s: s}
	if err := l.connect(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *natsLog) connect() (err error) {
	if l.nc, err = nats.Connect("", nats.InProcessServer(l.s)); err != nil {
		return err
	}
	if l.js, err = jetstream.New(l.nc, jetstream.WithPublishAsyncMaxPending(1<<14)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), natsReady)
	defer cancel()
	l.stream, err = l.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: natsName, Subjects: []string{natsName}, Storage: jetstream.FileStorage, Replicas: 1, AllowDirect: true,
	})
	return err
}

func (l *natsLog) append(items []item) error {
	if len(items) == 1 {
		return l.appendOne(items[0].payload)
	}
	l.acks = l.acks[:0]
	for i := range items {
		ack, err := l.js.PublishAsync(natsName, items[i].payload)
		if err != nil {
			return err
		}
		l.acks = append(l.acks, ack)
	}
	for _, ack := range l.acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		}
	}
	return nil
}

func (l *natsLog) appendOne(payload []byte) error {
	_, err := l.js.Publish(context.Background(), natsName, payload)
	return err
}

func (l *natsLog) flush() error { return nil }

func (l *natsLog) close() error {
	if l.nc != nil {
		l.nc.Close()
	}
	l.s.Shutdown()
	l.s.WaitForShutdown()
	return nil
}

func (l *natsLog) last() (uint64, error) {
	info, err := l.stream.Info(context.Background())
	if err != nil {
		return 0, err
	}
	if info.State.Msgs != info.State.LastSeq {
		return 0, errOrder
	}
	return info.State.LastSeq, nil
}

func (l *natsLog) get(seq uint64, _ []byte) ([]byte, error) {
	m, err := l.stream.GetMsg(context.Background(), seq)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (l *natsLog) scan(f func(payload []byte) error) error {
	last, err := l.last()
	if err != nil || last == 0 {
		return err
	}
	c, err := l.stream.OrderedConsumer(context.Background(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	messages, err := c.Messages(jetstream.PullMaxMessages(4096))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for seq := range last {
		m, err := messages.Next()
		if err != nil {
			return fmt.Errorf("after message %d: %w", seq, err)
		}
		if err := f(m.Data()); err != nil {
			return err
		}
	}
	return nil
}
