package main

import (
	"context"
	"net"
	"sync/atomic"

	"sealpost/gateway/config"
)

// newResolver asks the servers that are configured, or else those of the system. Of several the one that
// answered last is asked first: over UDP a dead server is only known by its silence, which costs seconds.
func newResolver(cfg *config.Config) *net.Resolver {
	if len(cfg.DNS) == 0 {
		return net.DefaultResolver
	}
	var current atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		asked := current.Load()
		next := func() { current.CompareAndSwap(asked, asked+1) }
		conn, err := (&net.Dialer{}).DialContext(ctx, network, cfg.DNS[int(asked)%len(cfg.DNS)])
		if err != nil {
			next()
			return nil, err
		}
		if packets, ok := conn.(*net.UDPConn); ok {
			return &questioned{packets, next}, nil
		}
		return conn, nil
	}}
}

// questioned is a server that was asked by UDP. It stays a net.PacketConn, by which package net knows that.
type questioned struct {
	*net.UDPConn
	next func()
}

// Read reads an answer. Without one the next try goes to the next server.
func (q *questioned) Read(b []byte) (int, error) {
	n, err := q.UDPConn.Read(b)
	if err != nil {
		q.next()
	}
	return n, err
}
