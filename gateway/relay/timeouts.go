package relay

import (
	"cmp"
	"errors"
	"net"
	"time"
)

// Timeouts bound the stages of an attempt (RFC 5321 section 4.5.3.2). Each covers the whole command, from
// sending it to the last line of its reply. Zero values take the defaults that are named.
type Timeouts struct {
	Dial     time.Duration // 30 s
	Greeting time.Duration // 5 min
	Hello    time.Duration // 5 min, for EHLO, HELO and STARTTLS each
	TLS      time.Duration // 1 min, for the handshake
	Mail     time.Duration // 5 min
	Rcpt     time.Duration // 5 min
	Data     time.Duration // 2 min, for the 354
	Block    time.Duration // 3 min, for each write
	Final    time.Duration // 10 min, for the reply to the final dot
	Quit     time.Duration // 5 s, spent after the attempt has been recorded
	Total    time.Duration // 1 h, for the attempt
}

func (t Timeouts) withDefaults() Timeouts {
	t.Dial = cmp.Or(t.Dial, 30*time.Second)
	t.Greeting = cmp.Or(t.Greeting, 5*time.Minute)
	t.Hello = cmp.Or(t.Hello, 5*time.Minute)
	t.TLS = cmp.Or(t.TLS, time.Minute)
	t.Mail = cmp.Or(t.Mail, 5*time.Minute)
	t.Rcpt = cmp.Or(t.Rcpt, 5*time.Minute)
	t.Data = cmp.Or(t.Data, 2*time.Minute)
	t.Block = cmp.Or(t.Block, 3*time.Minute)
	t.Final = cmp.Or(t.Final, 10*time.Minute)
	t.Quit = cmp.Or(t.Quit, 5*time.Second)
	t.Total = cmp.Or(t.Total, time.Hour)
	return t
}

// maxReceived bounds what a next hop may send over one connection, TLS included. An honest one needs a few KiB.
const maxReceived = 1 << 20

var errChatter = errors.New("the next hop sends too much")

// boundConn is a connection on which no write can hang, nor the peer send without end. Reads are bounded by
// the deadline that its user sets for each stage.
type boundConn struct {
	net.Conn
	block time.Duration
	left  int
}

func (c *boundConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.block)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *boundConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errChatter
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
