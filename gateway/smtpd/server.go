package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server is the SMTP front.
type Server struct {
	opts    Options
	metrics *metrics
	buffers *bufferPool
	plain   *engine // dialogues before STARTTLS
	secure  *engine // dialogues within TLS
	engines errgroup.Group

	intake func() context.Context // ends with a hard stop
	abort  context.CancelFunc
	greet  func() context.Context // ends when the server begins to go down
	refuse context.CancelFunc

	mu        sync.Mutex
	draining  bool
	started   bool
	listeners map[net.Listener]struct{}
	sockets   map[net.Conn]struct{}
	dialogues map[*conn]struct{}
	clients   map[netip.Prefix]int
	wg        sync.WaitGroup // one for each socket
}

// New makes a server. It listens to nothing yet.
func New(options Options) (*Server, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(options.Metrics)
	if err != nil {
		return nil, err
	}
	intake, abort := context.WithCancel(context.Background())
	greet, refuse := context.WithCancel(intake)
	s := &Server{
		opts: options, metrics: m, buffers: newBufferPool(),
		intake: func() context.Context { return intake }, abort: abort,
		greet: func() context.Context { return greet }, refuse: refuse,
		listeners: make(map[net.Listener]struct{}),
		sockets:   make(map[net.Conn]struct{}),
		dialogues: make(map[*conn]struct{}),
		clients:   make(map[netip.Prefix]int),
	}
	s.plain = s.newEngine(options.TLS)
	s.secure = s.newEngine(nil)
	return s, nil
}

// Serve takes connections from l until Shutdown, and then returns nil. It may be called once for each of
// several listeners. It owns l. After any other end, Shutdown must be called all the same.
func (s *Server) Serve(l net.Listener) error {
	if !s.start(l) {
		return l.Close()
	}
	for {
		nc, err := l.Accept()
		down := s.greet().Err() != nil
		switch {
		case err == nil:
			s.admit(nc)
		case down && errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			s.opts.Logger.Error("connection not accepted", "error", err)
			s.pause(time.Second)
		default:
			return fmt.Errorf("accept SMTP connections: %w", err)
		}
	}
}

// isTemporary tells whether accept may work again later, as when there are no file descriptors left.
func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// pause waits for d, or until the server goes down.
func (s *Server) pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.greet(), d)
	defer cancel()
	<-ctx.Done()
}

func (s *Server) start(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = struct{}{}
	if !s.started {
		s.started = true
		s.engines.Go(s.plain.serve)
		s.engines.Go(s.secure.serve)
	}
	return true
}

// admit serves nc, or sends it away.
func (s *Server) admit(nc net.Conn) {
	client := remoteAddr(nc)
	if !s.allowed(client) {
		s.turnAway(nc, client, deniedReply, "denied")
		return
	}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		s.turnAway(nc, client, goingDownReply, "shutdown")
		return
	}
	key := clientKey(client)
	if len(s.sockets) >= s.opts.Limits.Connections || s.tooMany(client, s.clients[key]) {
		s.mu.Unlock()
		s.turnAway(nc, client, busyReply, "busy")
		return
	}
	s.sockets[nc] = struct{}{}
	s.clients[key]++
	s.wg.Add(1)
	s.mu.Unlock()

	s.metrics.connections.WithLabelValues("taken").Inc()
	s.metrics.sessions.Inc()
	go s.serveSocket(nc, client)
}

// tooMany reports whether a client that has open connections already may not have another.
func (s *Server) tooMany(client netip.Addr, open int) bool {
	most := s.opts.Limits.ConnectionsPerClient
	return most > 0 && open >= most && !contains(s.opts.TrustedRelays, client)
}

func (s *Server) allowed(client netip.Addr) bool {
	return len(s.opts.AllowFrom) == 0 || contains(s.opts.AllowFrom, client)
}

func contains(networks []netip.Prefix, client netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(client) })
}

// turnAway answers in place of the greeting (RFC 5321 section 3.1). The reply fits into the socket's
// empty buffer; that it may get lost does no harm.
func (s *Server) turnAway(nc net.Conn, client netip.Addr, format, result string) {
	s.metrics.connections.WithLabelValues(result).Inc()
	s.metrics.replies.WithLabelValues(format[:3]).Inc()
	s.opts.Logger.Info("connection refused", "code", result, "reply", format[:3], "client", client)
	_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(nc, format, s.opts.Hostname)
	_ = nc.Close()
}

func (s *Server) release(nc net.Conn, client netip.Addr) {
	s.metrics.sessions.Dec()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, nc)
	key := clientKey(client)
	if s.clients[key]--; s.clients[key] <= 0 {
		delete(s.clients, key)
	}
	s.wg.Done()
}

// serveSocket owns nc to its end: one dialogue, and after STARTTLS another.
func (s *Server) serveSocket(nc net.Conn, client netip.Addr) {
	defer s.release(nc, client)
	defer s.hangUp(nc)
	first := s.newConn(nc, client, "")
	s.run(first, s.plain)
	if first.injected {
		s.startTLSFailed(client, errors.New("plaintext behind STARTTLS"))
	}
	if !first.upgraded {
		return
	}
	secured, err := s.handshake(nc)
	if err != nil {
		s.startTLSFailed(client, err)
		return
	}
	state := secured.ConnectionState()
	description := strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
	s.run(s.newConn(secured, client, description), s.secure)
	_ = secured.CloseWrite() // sends close_notify; the client may be gone
}

// hangUp closes nc. What the client has sent in vain is read first, but not for long: to close a socket on
// unread octets would throw away the last reply.
func (s *Server) hangUp(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil && nc.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		stop := context.AfterFunc(s.greet(), func() { _ = nc.SetReadDeadline(time.Now()) })
		_, _ = io.CopyN(io.Discard, nc, 1<<20) // ends well or not, then the socket is closed
		stop()
	}
	_ = nc.Close() // may be closed already, by a hard stop
}

func (s *Server) startTLSFailed(client netip.Addr, err error) {
	s.metrics.tlsFailures.Inc()
	s.opts.Logger.Info("STARTTLS failed", "client", client, "reason", err.Error())
}

// handshake begins TLS on nc (RFC 3207).
func (s *Server) handshake(nc net.Conn) (*tls.Conn, error) {
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadlines: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.greet(), s.opts.Limits.CommandIdle)
	defer cancel()
	secured := tls.Server(nc, s.opts.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// run has one dialogue.
func (s *Server) run(c *conn, e *engine) {
	s.mu.Lock()
	s.dialogues[c] = struct{}{}
	if s.draining {
		c.drain()
	}
	s.mu.Unlock()
	e.hand(c)
	s.mu.Lock()
	delete(s.dialogues, c)
	s.mu.Unlock()
}

// Shutdown stops listening, answers 421 to whoever is not sending message text, and waits for the mails
// that are under way. When ctx ends it gives them up: connections are cut, the Handler's contexts end,
// and ctx's error is returned. Either way nothing of the server runs any more when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stopAccepting()
	idle := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		err = ctx.Err()
		s.cut()
		<-idle
	}
	s.abort()
	rest := context.WithoutCancel(ctx) // what is left to wait for takes no time
	if e := errors.Join(s.plain.stop(rest), s.secure.stop(rest), s.engines.Wait()); err == nil {
		err = e
	}
	return err
}

func (s *Server) stopAccepting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.refuse()
	var errs []error
	for l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("stop listening: %w", err))
		}
		delete(s.listeners, l)
	}
	for c := range s.dialogues {
		c.drain()
	}
	return errors.Join(errs...)
}

// cut ends every connection and every hand-over at once.
func (s *Server) cut() {
	s.abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.sockets {
		_ = nc.Close() // its owner closes it again
	}
}

func remoteAddr(nc net.Conn) netip.Addr {
	address, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		return netip.Addr{} // not an IP network, as in tests
	}
	return address.Addr().Unmap().WithZone("")
}

// clientKey is what counts as one client: an IPv4 address, or an IPv6 /64, which is one customer's.
func clientKey(client netip.Addr) netip.Prefix {
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	prefix, err := client.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
