package meta

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// errSilent says that the server, or the way to it, gave no sign for too long.
var errSilent = errors.New("the database server does not answer")

// impatient is a connection on which no read or write waits for longer than limit, whatever its user allows. The server
// bounds its statements itself; this is for a server or a network that has stopped without a word.
type impatient struct {
	net.Conn
	limit time.Duration

	mu          sync.Mutex
	read, write time.Time // the deadlines that its user has set
}

func (c *impatient) Read(b []byte) (int, error) {
	return c.bounded(&c.read, c.Conn.SetReadDeadline, func() (int, error) { return c.Conn.Read(b) })
}

func (c *impatient) Write(b []byte) (int, error) {
	return c.bounded(&c.write, c.Conn.SetWriteDeadline, func() (int, error) { return c.Conn.Write(b) })
}

func (c *impatient) bounded(theirs *time.Time, set func(time.Time) error, do func() (int, error)) (int, error) {
	ours := time.Now().Add(c.limit)
	c.mu.Lock()
	if theirs.IsZero() || ours.Before(*theirs) {
		if err := set(ours); err != nil {
			c.mu.Unlock()
			return 0, err
		}
	}
	c.mu.Unlock()
	n, err := do()
	if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(ours) {
		return n, errSilent // no time-out, after which the connection would be used again
	}
	return n, err
}

func (c *impatient) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *impatient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c *impatient) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}
