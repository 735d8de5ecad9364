package smtpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyPatience is how long a balancer may take for its header, which it sends at once.
const proxyPatience = 10 * time.Second

// proxied is a socket whose PROXY header was read. What came along with the header is read first.
type proxied struct {
	net.Conn
	in *bufio.Reader
}

func (p *proxied) Read(b []byte) (int, error) {
	if p.in == nil {
		return p.Conn.Read(b)
	}
	if p.in.Buffered() > 0 {
		return p.in.Read(b)
	}
	p.in = nil
	return p.Conn.Read(b)
}

// readProxyHeader reads the header with which a connection from a balancer begins. client is invalid when
// the connection is the balancer's own. The error may hold what was sent, and is not for the log.
func (s *Server) readProxyHeader(nc net.Conn) (rest net.Conn, client netip.Addr, err error) {
	if err := nc.SetReadDeadline(time.Now().Add(min(proxyPatience, s.opts.Limits.CommandIdle))); err != nil {
		return nil, client, fmt.Errorf("set the deadline of the PROXY header: %w", err)
	}
	stop := context.AfterFunc(s.greet(), func() { _ = nc.SetReadDeadline(time.Now()) })
	defer stop()
	in := bufio.NewReaderSize(nc, 512)
	header, err := proxyproto.Read(in)
	if err != nil {
		return nil, client, fmt.Errorf("read the PROXY header: %w", err)
	}
	rest = &proxied{nc, in}
	if header.Command.IsLocal() || header.TransportProtocol.IsUnspec() {
		return rest, client, nil
	}
	source, ok := header.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, client, errors.New("the PROXY header is not about TCP")
	}
	if client, ok = netip.AddrFromSlice(source.IP); !ok {
		return nil, client, errors.New("the PROXY header has no source")
	}
	return rest, client.Unmap(), nil
}
