package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
)

// maxCommandLine bounds what go-smtp gathers of one command line (RFC 5321 section 4.5.3.1.4 asks for 512
// octets, and extensions add to it). Message text does not pass through go-smtp.
const maxCommandLine = 4096

// engine is one go-smtp server together with the listener through which it gets its connections.
type engine struct {
	smtp  *smtp.Server
	conns chan *conn
	over  chan struct{}
	once  sync.Once
}

var _ net.Listener = (*engine)(nil)

// newEngine sets up go-smtp. It offers STARTTLS if config is not nil; what happens then is ours.
func (s *Server) newEngine(config *tls.Config) *engine {
	srv := smtp.NewServer(smtp.BackendFunc(s.newSession))
	srv.Domain = s.opts.Hostname
	srv.TLSConfig = config
	srv.MaxRecipients = s.opts.Limits.Recipients
	srv.MaxMessageBytes = s.opts.MaxMessageSize
	srv.MaxLineLength = maxCommandLine
	srv.ReadTimeout = s.opts.Limits.CommandIdle // makes go-smtp call SetReadDeadline: see conn
	srv.EnableSMTPUTF8 = true
	srv.EnableDSN = true
	srv.AllowInsecureAuth = true // AUTH is unknown here, rather than known with TLS only
	srv.ErrorLog = errorLog{s.opts.Logger}
	return &engine{smtp: srv, conns: make(chan *conn), over: make(chan struct{})}
}

func (e *engine) serve() error { return e.smtp.Serve(e) }

// hand has go-smtp serve c and returns when that has ended.
func (e *engine) hand(c *conn) {
	select {
	case e.conns <- c:
		<-c.done
	case <-e.over:
	}
}

// stop returns when no goroutine of go-smtp's is left. All connections must have ended.
func (e *engine) stop(ctx context.Context) error {
	err := e.smtp.Shutdown(ctx)
	if errors.Is(err, smtp.ErrServerClosed) {
		err = nil // Shutdown was called twice
	}
	return errors.Join(err, e.Close())
}

// Accept is called by go-smtp.
func (e *engine) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.over:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (e *engine) Close() error {
	e.once.Do(func() { close(e.over) })
	return nil
}

// Addr is of no use; a listener must have it.
func (e *engine) Addr() net.Addr { return &net.TCPAddr{} }

// errorLog passes on that go-smtp has met an error, without what it says about it: that may hold what the
// client has sent. Of a panic, the stack is kept.
type errorLog struct{ logger *slog.Logger }

func (l errorLog) Printf(format string, args ...any) {
	attrs := []any{"kind", format}
	if strings.HasPrefix(format, "panic") && len(args) > 0 {
		if stack, ok := args[len(args)-1].([]byte); ok {
			attrs = append(attrs, "stack", string(stack))
		}
	}
	l.logger.Error("SMTP library error", attrs...)
}

func (l errorLog) Println(...any) { l.logger.Error("SMTP library error") }

// spoolBuffer is what is gathered of a mail for one write to the spool.
const spoolBuffer = 64 << 10

// bufferPool keeps the buffers of mails that are being received.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([spoolBuffer]byte) }}}
}

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[spoolBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, spoolBuffer)
}

func (p *bufferPool) put(b []byte) {
	clear(b) // mail in plaintext
	p.pool.Put((*[spoolBuffer]byte)(b))
}
