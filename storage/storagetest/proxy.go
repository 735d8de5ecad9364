package storagetest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands on loopback between a client and a server that speak TCP. Its faults take effect at once, on
// connections that are open and on new ones. Up is what the client sends, down what the server does.
type Proxy struct {
	// Addr is where it listens, host and port.
	Addr string

	target   string
	listener net.Listener
	done     chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex
	faults   faults
	changed  chan struct{} // closed when faults change
	live     map[*link]bool
	accepted int
	closed   bool
}

// faults are what is wrong at the moment.
type faults struct {
	refuse, stall bool
	delay         time.Duration
	cut           [2]int64 // bytes until the cut, by direction; -1: none
	corrupt       int64    // bytes down until the altered one; -1: none
}

const (
	up = iota
	down
)

func healthy() faults { return faults{cut: [2]int64{-1, -1}, corrupt: -1} }

// StartProxy listens until the test ends. target is the server's host and port.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it opens at once
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener, done: make(chan struct{}),
		faults: healthy(), changed: make(chan struct{}), live: map[*link]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Refuse resets all connections, and each new one at once.
func (p *Proxy) Refuse() { p.set(func(f *faults) { f.refuse = true }, true) }

// Cut resets the connections that are open, and no other.
func (p *Proxy) Cut() { p.set(func(*faults) {}, true) }

// Delay holds each piece of up to 32 KiB back for d, in both directions.
func (p *Proxy) Delay(d time.Duration) { p.set(func(f *faults) { f.delay = d }, false) }

// Stall passes nothing on; connections stay open and are accepted.
func (p *Proxy) Stall() { p.set(func(f *faults) { f.stall = true }, false) }

// CutAfter resets one connection: the one on which that many more bytes have passed in a direction, counted
// over all connections from now on. A negative number means never.
func (p *Proxy) CutAfter(upBytes, downBytes int64) {
	p.set(func(f *faults) { f.cut = [2]int64{upBytes, downBytes} }, false)
}

// Corrupt inverts the nth byte down from now on, counted over all connections from 0.
func (p *Proxy) Corrupt(n int64) { p.set(func(f *faults) { f.corrupt = n }, false) }

// Heal ends all faults.
func (p *Proxy) Heal() { p.set(func(f *faults) { *f = healthy() }, false) }

// Connections returns how many were accepted so far.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Live returns how many are open.
func (p *Proxy) Live() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.live)
}

// Close resets all connections, ends listening, and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if first {
		close(p.done)
		_ = p.listener.Close() // accept ends
		p.set(func(*faults) {}, true)
	}
	p.running.Wait()
}

func (p *Proxy) set(change func(*faults), reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
	if reset {
		for l := range p.live {
			l.reset()
		}
		clear(p.live)
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &link{client: client.(*net.TCPConn)}
		p.mu.Lock()
		p.accepted++
		refused := p.faults.refuse || p.closed
		if !refused {
			p.live[l] = true
			p.running.Go(func() { p.serve(l) })
		}
		p.mu.Unlock()
		if refused {
			l.reset()
		}
	}
}

// link is one connection of a client and the one to the server.
type link struct {
	client *net.TCPConn

	mu     sync.Mutex
	server *net.TCPConn
	ended  bool
}

// reset breaks both off, without a good-bye.
func (l *link) reset() { l.end(0) }

// close ends both, once what was written has been sent.
func (l *link) close() { l.end(-1) }

func (l *link) end(linger int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, conn := range []*net.TCPConn{l.client, l.server} {
		if conn != nil {
			_ = conn.SetLinger(linger) // it may be closed
			_ = conn.Close()
		}
	}
}

// join takes the connection to the server, unless the link was reset.
func (l *link) join(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = server.Close()
		return false
	}
	l.server = server
	return true
}

// serve passes bytes on until both directions have ended.
func (p *Proxy) serve(l *link) {
	defer func() {
		l.close()
		p.mu.Lock()
		delete(p.live, l)
		p.mu.Unlock()
	}()
	server, err := net.Dial("tcp", p.target) //nolint:noctx // on loopback it is answered at once
	if err != nil || !l.join(server.(*net.TCPConn)) {
		l.reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, l.client, l.server, up) })
	both.Go(func() { p.pump(l, l.server, l.client, down) })
	both.Wait()
}

// cut resets one connection.
func (p *Proxy) cut(l *link) {
	p.mu.Lock()
	delete(p.live, l)
	p.mu.Unlock()
	l.reset()
}

// pump passes one direction on.
func (p *Proxy) pump(l *link, from, to *net.TCPConn, direction int) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			pass, cut := p.apply(buffer[:n], direction)
			if _, failed := to.Write(buffer[:pass]); failed != nil || cut {
				p.cut(l)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite() // the other direction goes on
			return
		}
		if err != nil {
			p.cut(l)
			return
		}
	}
}

// apply does to a piece what is wrong at the moment, and returns how much of it passes, and whether the
// connection ends then.
func (p *Proxy) apply(piece []byte, direction int) (pass int, cut bool) {
	if !p.hold() {
		return 0, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pass = len(piece)
	if left := &p.faults.cut[direction]; *left >= 0 {
		if cut = *left <= int64(pass); cut {
			pass = int(*left)
			*left = -1
		} else {
			*left -= int64(pass)
		}
	}
	if direction == down && p.faults.corrupt >= 0 {
		if p.faults.corrupt < int64(pass) {
			piece[p.faults.corrupt] ^= 0xff
			p.faults.corrupt = -1
		} else {
			p.faults.corrupt -= int64(pass)
		}
	}
	return pass, cut
}

// hold waits while the proxy stalls, and for the delay. It reports whether the proxy is still open.
func (p *Proxy) hold() bool {
	var waited <-chan time.Time
	for {
		p.mu.Lock()
		f, changed, closed := p.faults, p.changed, p.closed
		p.mu.Unlock()
		switch {
		case closed:
			return false
		case f.stall:
		case f.delay > 0 && waited == nil:
			timer := time.NewTimer(f.delay)
			defer timer.Stop()
			waited = timer.C
		case f.delay == 0:
			return true
		}
		select {
		case <-waited:
			waited = nil
			if !f.stall {
				return true
			}
		case <-changed:
		case <-p.done:
			return false
		}
	}
}
