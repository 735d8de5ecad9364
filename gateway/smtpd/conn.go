package smtpd

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// inputBuffer bounds what is held of a client's input; a longer command line is handed on in pieces.
const inputBuffer = 16 << 10

// bare is what a client writes for the one recipient that needs no domain (RFC 5321 section 4.5.1).
// go-smtp knows no such address, so it is given the one below, and the session hears of it by c.bare.
const (
	bare       = "<postmaster>"
	standIn    = "<postmaster@localhost>"
	postmaster = "postmaster"
)

// conn is what go-smtp takes for the client's socket. It is one dialogue: before STARTTLS, or within TLS.
//
// go-smtp gets one command line at a time and nothing beyond it. It calls SetReadDeadline before each, so
// conn knows when a command begins. What follows a command stays here, where Session.Data finds the
// message text. Of BDAT go-smtp knows nothing: it is given DATA instead (see chunks.go).
//
// All methods but drain, begin and end are called by the one goroutine that serves the dialogue.
type conn struct {
	net.Conn // the socket, or the TLS connection on it
	client   netip.Addr
	tls      string // as in gateway.Envelope
	hostname string
	limits   Limits
	metrics  *metrics
	greeting bool          // the dialogue begins with one
	done     chan struct{} // closed when go-smtp has closed the conn
	tell     func(queueID string, heard bool)

	in      *bufio.Reader
	pending []byte // a command line that was read, and not handed out
	line    []byte // what is not yet handed out of the current one
	inject  string // is read before all else
	inText  bool   // message text is read, not a command
	chunk   int64  // octets of the BDAT chunk that are still to come
	last    bool   // it is the last chunk
	deaf    bool   // no more input
	closed  bool
	until   time.Time // when the command must be complete
	dataEnd time.Time // when the message text must be complete

	verb     string // of the command that is being answered
	bare     bool   // it is RCPT TO:<postmaster>
	esmtp    bool   // the client said EHLO
	greeted  bool
	upgraded bool // the client was told to begin TLS
	injected bool // the client sent plaintext behind STARTTLS
	dropped  bool // the next reply is not sent
	replying []byte
	out      []byte
	mute     bool // no more output
	errors   int

	meter     *meter
	unsettled bool // the client has not yet shown that it heard of the mail queueID
	queueID   string
	unproven  int64 // what the client had sent when the 250 went out, in octets on the wire; 0: it has not yet gone

	mu       sync.Mutex
	draining bool
	busy     bool // a mail is being received or accepted
}

var _ net.Conn = (*conn)(nil)

// newConn makes the dialogue on nc. Within TLS, state describes it; behind STARTTLS there is no greeting.
func (s *Server) newConn(nc net.Conn, k *socket, state string, greeting bool) *conn {
	c := &conn{
		Conn: nc, client: k.client, meter: k.meter, tls: state, greeting: greeting,
		hostname: s.opts.Hostname, limits: s.opts.Limits, metrics: s.metrics,
		done: make(chan struct{}), tell: s.opts.Handler.Settle,
	}
	c.in = bufio.NewReaderSize(readerFunc(c.receive), inputBuffer)
	return c
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// SetReadDeadline tells that a command is read next. How long it may take is ours to say.
func (c *conn) SetReadDeadline(time.Time) error {
	c.line = nil
	c.until = time.Now().Add(c.limits.CommandIdle)
	return nil
}

// Read hands out the next command line, or the rest of it.
func (c *conn) Read(p []byte) (int, error) {
	if c.inject != "" {
		n := copy(p, c.inject)
		c.inject = c.inject[n:]
		return n, nil
	}
	if len(c.line) == 0 {
		if err := c.nextCommand(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.line)
	c.line = c.line[n:]
	return n, nil
}

func (c *conn) nextCommand() error {
	if err := c.skipChunk(); err != nil {
		return err
	}
	if c.goingDown() {
		c.farewell(goingDownReply)
		return net.ErrClosed
	}
	line := c.pending
	c.pending = nil
	if line == nil {
		var err error
		if line, err = c.readLine(); err != nil {
			return err
		}
	}
	c.verb, c.bare = verbOf(line), false
	switch c.verb {
	case "DATA":
		c.dataEnd = time.Now().Add(c.limits.DataTotal)
	case "BDAT":
		c.dataEnd = time.Now().Add(c.limits.DataTotal)
		if !c.parseChunk(line) {
			return net.ErrClosed
		}
		line = []byte("DATA\r\n")
	case "RCPT":
		i := bytes.IndexByte(line, '<')
		if i > 0 && len(line) >= i+len(bare) && strings.EqualFold(string(line[i:i+len(bare)]), bare) {
			c.bare = true
			line = append(append(bytes.Clone(line[:i]), standIn...), line[i+len(bare):]...)
		}
	}
	c.line = line
	return nil
}

// readLine reads a command line, or the next piece of one that is too long. It is valid until the next read.
func (c *conn) readLine() ([]byte, error) {
	if c.deaf {
		return nil, net.ErrClosed
	}
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return line, err
}

// verbOf returns the command of a line that go-smtp would take for one of four letters.
func verbOf(line []byte) string {
	if len(line) < 5 || line[4] > ' ' {
		return ""
	}
	return strings.ToUpper(string(line[:4]))
}

// text returns message text that was received and not yet consumed, at least one octet. It is valid until
// the next read.
func (c *conn) text() ([]byte, error) {
	if c.deaf {
		return nil, net.ErrClosed
	}
	c.inText = true
	defer func() { c.inText = false }()
	if _, err := c.in.Peek(1); err != nil {
		return nil, err
	}
	return c.in.Peek(c.in.Buffered())
}

// consume takes the first n octets of text.
func (c *conn) consume(n int) { _, _ = c.in.Discard(n) } // never more than text has returned

// receive waits for the client. Every way it fails ends the dialogue. It never fails with io.EOF.
func (c *conn) receive(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, net.ErrClosed
	}
	if err := c.arm(); err != nil {
		c.deaf, c.mute = true, true
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	switch {
	case n > 0:
		if c.meter.taken > c.unproven {
			c.settle(true)
		}
		return n, nil // an error comes again
	case err == nil:
		return 0, nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.deaf, c.mute = true, true
		return 0, net.ErrClosed
	case c.goingDown():
		c.farewell(goingDownReply)
	default:
		c.farewell(timeoutReply)
	}
	return 0, os.ErrDeadlineExceeded
}

// arm sets the deadline of the next read.
func (c *conn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := c.until
	if c.inText {
		deadline = time.Now().Add(c.limits.DataIdle)
	}
	if (c.inText || c.busy) && c.dataEnd.Before(deadline) {
		deadline = c.dataEnd
	}
	if c.draining && !c.busy {
		deadline = time.Now()
	}
	return c.Conn.SetReadDeadline(deadline)
}

// drain ends the dialogue with 421 as soon as no mail is being received or accepted.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if !c.busy {
		_ = c.Conn.SetReadDeadline(time.Now()) // fails on a closed socket only, where nothing waits
	}
}

// begin and end enclose the time in which a mail is received and accepted.
func (c *conn) begin() { c.setBusy(true) }
func (c *conn) end()   { c.setBusy(false) }

func (c *conn) setBusy(busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = busy
}

func (c *conn) goingDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining && !c.busy
}

// Close ends the dialogue. The socket stays open: whoever waits for done closes it, or begins TLS.
func (c *conn) Close() error {
	if c.closed {
		return nil
	}
	err := c.flush()
	c.closed, c.deaf, c.mute = true, true, true
	close(c.done)
	return err
}
