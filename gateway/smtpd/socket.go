package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// handshakePatience is how long a client may take to begin TLS.
const handshakePatience = time.Minute

// socket is one accepted connection.
type socket struct {
	nc       net.Conn // as it was accepted
	meter    *meter   // through which nc is read
	client   netip.Addr
	implicit bool // TLS comes before the greeting
	proxied  bool // a PROXY header comes first of all, and says who the client is
	counted  bool // it has a place in Server.clients; guarded by Server.mu
}

// admit serves nc, or sends it away. Nothing is read here, so that nobody keeps others waiting.
func (s *Server) admit(nc net.Conn, implicit bool) {
	k := &socket{nc: nc, meter: &meter{Conn: nc}, client: remoteAddr(nc), implicit: implicit}
	k.proxied = contains(s.opts.ProxyFrom, k.client)
	if no := s.enter(k); no != nil {
		s.turnAway(k, no)
		_ = nc.Close()
		return
	}
	s.metrics.sessions.Inc()
	go s.serveSocket(k)
}

// refusal is why a connection is not served, and what its client is told.
type refusal struct{ reply, result string }

// enter gives k its place among the connections, or says why there is none. A balancer's connection has
// its client checked later.
func (s *Server) enter(k *socket) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !k.proxied && !s.allowed(k.client) {
		return &refusal{deniedReply, "denied"}
	}
	if s.draining {
		return &refusal{goingDownReply, "shutdown"}
	}
	if len(s.sockets) >= s.places(k.client) {
		return &refusal{busyReply, "busy"}
	}
	if !k.proxied && !s.countClient(k) {
		return &refusal{busyReply, "busy"}
	}
	s.sockets[k] = struct{}{}
	s.wg.Add(1)
	return nil
}

// places is how many connections there may be before this client's. The last tenth is for the mail servers in
// front of us, so that strangers cannot shut them out.
func (s *Server) places(client netip.Addr) int {
	all := s.opts.Limits.Connections
	if len(s.opts.TrustedRelays) == 0 || contains(s.opts.TrustedRelays, client) {
		return all
	}
	return all - all/10
}

// enterProxied checks the client of a balancer's connection, once it is known.
func (s *Server) enterProxied(k *socket) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.allowed(k.client) {
		return &refusal{deniedReply, "denied"}
	}
	if !s.countClient(k) {
		return &refusal{busyReply, "busy"}
	}
	return nil
}

// countClient takes one of the client's own places. The caller holds the lock.
func (s *Server) countClient(k *socket) bool {
	key := clientKey(k.client)
	most := s.opts.Limits.ConnectionsPerClient
	if most > 0 && s.clients[key] >= most && !contains(s.opts.TrustedRelays, k.client) {
		return false
	}
	s.clients[key]++
	k.counted = true
	return true
}

func (s *Server) allowed(client netip.Addr) bool {
	return len(s.opts.AllowFrom) == 0 || contains(s.opts.AllowFrom, client)
}

func contains(networks []netip.Prefix, client netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(client) })
}

// turnAway answers in place of the greeting (RFC 5321 section 3.1). The reply fits into the socket's
// empty buffer; that it may get lost does no harm. A client that waits for TLS could not read it.
func (s *Server) turnAway(k *socket, no *refusal) {
	s.metrics.connections.WithLabelValues(no.result).Inc()
	s.opts.Logger.Info("connection refused", "code", no.result, "reply", no.reply[:3], "client", k.client)
	if k.implicit {
		return
	}
	s.metrics.replies.WithLabelValues(no.reply[:3]).Inc()
	_ = k.nc.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(k.nc, no.reply, s.opts.Hostname)
}

func (s *Server) release(k *socket) {
	s.metrics.sessions.Dec()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, k)
	if k.counted {
		key := clientKey(k.client)
		if s.clients[key]--; s.clients[key] <= 0 {
			delete(s.clients, key)
		}
	}
	s.wg.Done()
}

// serveSocket owns k to its end: one dialogue, and after STARTTLS another.
func (s *Server) serveSocket(k *socket) {
	defer s.release(k)
	defer s.hangUp(k.nc)
	var nc net.Conn = k.meter
	if k.proxied {
		var ok bool
		if nc, ok = s.introduced(k); !ok {
			return
		}
	}
	s.metrics.connections.WithLabelValues("taken").Inc()
	if !k.implicit {
		first := s.newConn(nc, k, "", true)
		s.run(first, s.plain)
		if first.injected {
			s.tlsFailed(k.client, errors.New("plaintext behind STARTTLS"))
		}
		if !first.upgraded {
			return
		}
	}
	s.serveSecured(k, nc)
}

// introduced learns from the balancer who the client is. It returns the rest of the connection.
func (s *Server) introduced(k *socket) (net.Conn, bool) {
	rest, client, err := s.readProxyHeader(k.meter)
	if err != nil {
		s.metrics.connections.WithLabelValues("proxy").Inc()
		s.opts.Logger.Info("connection without a proper PROXY header", "client", k.client, "timeout", errors.Is(err, os.ErrDeadlineExceeded))
		return nil, false
	}
	if client.IsValid() {
		k.client = client
	}
	if no := s.enterProxied(k); no != nil {
		s.turnAway(k, no)
		return nil, false
	}
	return rest, true
}

// serveSecured begins TLS on nc and has the dialogue within it.
func (s *Server) serveSecured(k *socket, nc net.Conn) {
	secured, err := s.handshake(nc)
	if err != nil {
		s.tlsFailed(k.client, err)
		return
	}
	state := secured.ConnectionState()
	description := strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
	s.run(s.newConn(secured, k, description, k.implicit), s.secure)
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

func (s *Server) tlsFailed(client netip.Addr, err error) {
	s.metrics.tlsFailures.Inc()
	s.opts.Logger.Info("TLS failed", "client", client, "reason", err.Error())
}

// handshake begins TLS on nc (RFC 3207, RFC 8314).
func (s *Server) handshake(nc net.Conn) (*tls.Conn, error) {
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadlines: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.greet(), min(handshakePatience, s.opts.Limits.CommandIdle))
	defer cancel()
	secured := tls.Server(nc, s.opts.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
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
