package smtpd

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// A client may send commands before it has seen the 250 to its mail (RFC 2920 section 3.1; Postfix sends
// QUIT so). They do not show that it has heard, and may have waited in the socket when the 250 went out.
// So octets are counted on the wire, beneath TLS: only one that came later settles a mail as heard.

// meter counts what is read from a socket.
type meter struct {
	net.Conn
	taken int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.taken += int64(n)
	return n, err
}

// waiting returns the number of octets that came and were not yet read, as far as the system tells.
func (m *meter) waiting() int64 {
	sc, ok := m.Conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0 // it is closed
	}
	n := 0
	if raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) != nil || err != nil {
		return 0
	}
	return int64(n)
}

// await tells that a mail was accepted, and that the client is about to hear of it.
func (c *conn) await(queueID string) { c.unsettled, c.queueID, c.unproven = true, queueID, 0 }

// mark tells that the replies which were gathered go out now.
func (c *conn) mark() {
	if c.unsettled && c.unproven == 0 {
		c.unproven = c.meter.taken + c.meter.waiting()
	}
}

// settle tells the Handler whether the client has heard of the last mail, if it was not told yet.
func (c *conn) settle(heard bool) {
	if c.unsettled {
		c.unsettled = false
		c.tell(c.queueID, heard)
	}
}
