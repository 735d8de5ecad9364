package sftest

import (
	"net"
	"sync"
)

// listener knows its open connections, so that they can be cut.
type listener struct {
	net.Listener
	hide8BitMIME bool

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.conns[c] = struct{}{}
	return &conn{Conn: c, listener: l}, nil
}

// cut closes the listener and every connection.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_ = l.Close()
	for c := range l.conns {
		_ = c.Close()
	}
}

type conn struct {
	net.Conn
	listener *listener
}

// Write passes on what the server says, but for the line that offers 8BITMIME if that is hidden: go-smtp
// always offers it, and writes each line of a reply by itself.
func (c *conn) Write(p []byte) (int, error) {
	if c.listener.hide8BitMIME && string(p) == "250-8BITMIME\r\n" {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
