package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"sealpost/gateway"
)

// stage is where in the dialogue an attempt ended.
type stage string

const (
	stageOpen     stage = "open" // before a connection: the route, the copy
	stageDNS      stage = "dns"
	stageConnect  stage = "connect"
	stageGreeting stage = "greeting"
	stageHello    stage = "hello"
	stageTLS      stage = "starttls"
	stageAuth     stage = "auth"
	stageReset    stage = "rset" // before a further mail
	stageMail     stage = "mail"
	stageRcpt     stage = "rcpt"
	stageData     stage = "data" // the command
	stageBody     stage = "body"
	stageFinal    stage = "final" // the reply to the final dot
)

// stageError is a failure with the stage it came at. Its cause is a *textproto.Error when the next hop said so.
type stageError struct {
	at  stage
	err error
}

func (e *stageError) Error() string { return string(e.at) + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

var (
	errNoTLS = errors.New("TLS is required, but the next hop does not offer it")
	// errTLS marks a failure that may be avoided by not using TLS.
	errTLS = errors.New("TLS failed")
)

// session is one SMTP connection to a next hop.
type session struct {
	raw      net.Conn
	conn     net.Conn // bounds raw; TLS once it has begun
	text     *textproto.Conn
	timeouts Timeouts
	ext      map[string]string // offered extensions: upper-cased keyword -> parameters
	tls      string            // as in gateway.Envelope
	// idle is set while the hop waits for a command. Only then may QUIT be sent: within DATA it would
	// complete a mail that was cut.
	idle bool
	code int // of the last reply
	// broken is what failed about TLS where the session goes on in plaintext; nil: nothing did.
	broken error
	stop   func() bool

	dest   destination
	host   string // name or address, without port
	hop    string // host and port
	mails  int    // transactions that were begun
	dirty  bool   // a transaction was begun and not ended
	parked time.Time
}

// bind lets the session end with ctx, until stop is called, which reports whether it has not yet.
func (s *session) bind(ctx context.Context) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.raw.Close()
		close(closed)
	})
	s.stop = sync.OnceValue(func() bool {
		stopped := stop()
		if !stopped {
			<-closed
		}
		return stopped
	})
}

// stale reports whether err may say no more than that a session which had been idle is of no use any longer: it
// cannot be reset, is closed, or refuses every command (a limit of errors or mails, a policy about the client).
func (s *session) stale(err error) bool {
	var at *stageError
	if !errors.As(err, &at) || at.at != stageMail && at.at != stageReset {
		return false
	}
	var (
		said   *textproto.Error
		never  refusal
		copied *copyError
	)
	switch {
	case errors.As(err, &never), errors.As(err, &copied): // that is about the mail
		return false
	case errors.As(err, &said):
		return at.at == stageReset || said.Code == 421 || said.Code/100 == 5
	}
	return true
}

// inPlaintext returns err of a session that goes on without TLS because TLS failed. A hop that then refuses us may
// only want TLS, so that what failed about it is the reason.
func (s *session) inPlaintext(err error) error {
	var said *textproto.Error
	if s.broken == nil || !errors.As(err, &said) || said.Code/100 != 5 {
		return err
	}
	return &stageError{stageTLS, fmt.Errorf("%w; and in plaintext the next hop answers %d", s.broken, said.Code)}
}

// dialer opens sessions.
type dialer struct {
	hostname string
	tls      *tls.Config
	timeouts Timeouts
}

// open connects to address of the server host, says hello, begins TLS where it is offered, and logs in. The
// session ends with ctx.
func (d dialer) open(ctx context.Context, hop gateway.NextHop, host, address string) (*session, error) {
	s, err := d.connect(ctx, hop, host, address, nil)
	if errors.Is(err, errTLS) && !mustTLS(hop) && ctx.Err() == nil {
		return d.connect(ctx, hop, host, address, err)
	}
	return s, err
}

// mustTLS reports whether nothing may be sent to hop in plaintext.
func mustTLS(hop gateway.NextHop) bool {
	return hop.ImplicitTLS || hop.TLS == gateway.TLSRequire || hop.TLS == gateway.TLSVerify
}

// connect opens one connection. broken is why TLS is not to be begun; nil: it is.
func (d dialer) connect(ctx context.Context, hop gateway.NextHop, host, address string, broken error) (*session, error) {
	dial := net.Dialer{Timeout: d.timeouts.Dial}
	conn, err := dial.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port(hop)))))
	if err != nil {
		return nil, &stageError{stageConnect, err}
	}
	s := &session{timeouts: d.timeouts, broken: broken, raw: conn, conn: &boundConn{Conn: conn, block: d.timeouts.Block, left: maxReceived}}
	s.text = textproto.NewConn(s.conn)
	s.bind(ctx)
	if err := s.begin(ctx, d, hop, host); err != nil {
		s.hangUp()
		return nil, s.inPlaintext(err)
	}
	return s, nil
}

// begin leads the session to where MAIL may be sent.
func (s *session) begin(ctx context.Context, d dialer, hop gateway.NextHop, host string) error {
	if hop.ImplicitTLS {
		if err := s.startTLS(ctx, d.config(hop, host)); err != nil {
			return err
		}
	}
	if _, err := s.reply(stageGreeting, s.timeouts.Greeting, 2); err != nil {
		return err
	}
	if err := s.hello(d.hostname); err != nil {
		return err
	}
	if s.tls == "" && s.broken == nil {
		if err := s.protect(ctx, d, hop, host); err != nil {
			return err
		}
	}
	return s.authenticate(hop)
}

// protect begins TLS by STARTTLS (RFC 3207).
func (s *session) protect(ctx context.Context, d dialer, hop gateway.NextHop, host string) error {
	_, offered := s.ext["STARTTLS"]
	if !offered && mustTLS(hop) {
		return &stageError{stageTLS, errNoTLS}
	}
	if !offered {
		return nil
	}
	err := s.askTLS()
	switch {
	case err == nil:
		if err = s.startTLS(ctx, d.config(hop, host)); err == nil {
			err = s.hello(d.hostname)
		}
	case s.idle && !mustTLS(hop): // it changed its mind: go on in plaintext (RFC 3207 section 4.1)
		s.broken, err = err, nil
	}
	return err
}

func (s *session) askTLS() error {
	if _, err := s.command(stageTLS, s.timeouts.Hello, 2, "STARTTLS"); err != nil {
		return &stageError{stageTLS, errors.Join(errTLS, err)}
	}
	return nil
}

// config returns the TLS configuration for the server host of hop.
func (d dialer) config(hop gateway.NextHop, host string) *tls.Config {
	c := d.tls.Clone()
	c.ServerName = host
	// Opportunistic TLS has no authenticated name to hold a certificate against, and its
	// alternative is plaintext (RFC 7435). A route that wants it verified says so.
	c.InsecureSkipVerify = hop.TLS != gateway.TLSVerify
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c
}

// startTLS does the handshake. What the hop sent in plaintext after its reply is discarded with the old
// reader (RFC 3207 section 4.2), and so is what it offered.
func (s *session) startTLS(ctx context.Context, config *tls.Config) error {
	conn := tls.Client(s.conn, config)
	if err := s.conn.SetReadDeadline(time.Now().Add(s.timeouts.TLS)); err != nil {
		return &stageError{stageTLS, err}
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		s.idle = false
		return &stageError{stageTLS, errors.Join(errTLS, err)}
	}
	state := conn.ConnectionState()
	version := strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	s.tls = version + " " + tls.CipherSuiteName(state.CipherSuite)
	s.conn, s.text, s.ext = conn, textproto.NewConn(conn), nil
	return nil
}

// hello says EHLO, or HELO to a server that does not know it.
func (s *session) hello(hostname string) error {
	msg, err := s.command(stageHello, s.timeouts.Hello, 2, "EHLO "+hostname)
	var refused *textproto.Error
	if errors.As(err, &refused) && refused.Code/100 == 5 {
		_, err = s.command(stageHello, s.timeouts.Hello, 2, "HELO "+hostname)
		return err
	}
	if err != nil {
		return err
	}
	s.ext = map[string]string{}
	for i, line := range strings.Split(msg, "\n") {
		if i == 0 {
			continue
		}
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.ext[strings.ToUpper(keyword)] = params
	}
	return nil
}

// command sends one line and reads its reply, which must be of the class want (2 or 3).
func (s *session) command(at stage, limit time.Duration, want int, line string) (string, error) {
	s.idle = false
	if err := s.text.PrintfLine("%s", line); err != nil {
		return "", &stageError{at, err}
	}
	return s.reply(at, limit, want)
}

// reply reads one reply, whole within limit, and returns its text without codes.
func (s *session) reply(at stage, limit time.Duration, want int) (string, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", &stageError{at, err}
	}
	code, msg, err := s.text.ReadResponse(want)
	var refused *textproto.Error
	if err != nil && !errors.As(err, &refused) {
		return "", &stageError{at, err}
	}
	s.code, s.idle = code, code != 421 && code/100 != 3
	if err != nil {
		return "", &stageError{at, err}
	}
	return msg, nil
}

// hangUp says QUIT where that is possible, and closes the connection.
func (s *session) hangUp() {
	if s.idle {
		_, _ = s.command(stageFinal, s.timeouts.Quit, 2, "QUIT")
	}
	s.stop()
	_ = s.conn.Close()
}
