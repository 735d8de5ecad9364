// Package clamd asks ClamAV's daemon whether a mail carries malware. It is a package of its own since it
// is the only one that talks to the scanner.
//
// A mail is streamed with zINSTREAM in chunks of at most 64 KiB over a connection of its own, and the number
// of connections is bounded. What clamd calls too large, what goes beyond its limits within archives, and what
// takes it longer than the timeout while it answers others is unscanned and no error: one mail must not make the
// scanner count as away. Every reply other than those that are known is an error, so that an unknown reply
// never counts as clean.
//
// With its own defaults clamd calls a file clean whose archives go beyond MaxScanSize, MaxFileSize or MaxRecursion.
// Only AlertExceedsMax makes it say so (clamd.conf(5)).
package clamd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"sealpost/gateway"
)

const (
	chunkSize     = 64 << 10
	maxReply      = 4 << 10
	maxSignature  = 200
	exceedsMax    = "Heuristics.Limits.Exceeded"
	defaultScan   = 60 * time.Second
	defaultAtOnce = 10
	pingTimeout   = 5 * time.Second
	maxWait       = 30 * time.Second // for a free connection
)

// Options configure a Client.
type Options struct {
	// Address is "unix:/run/clamav/clamd.ctl" or "tcp:127.0.0.1:3310".
	Address string
	// Timeout bounds a scan, from when a connection is free; 0: 60 s.
	Timeout time.Duration
	// MaxConnections bounds the connections in use at once; 0: 10.
	MaxConnections int
	Logger         *slog.Logger          // nil: silent
	Metrics        prometheus.Registerer // nil: none registered
}

// errTooSlow says that the scanner has a connection and does not answer in time.
var errTooSlow = errors.New("the scanner takes too long")

// Client talks to one clamd. It is safe for concurrent use.
type Client struct {
	network, address string
	timeout, wait    time.Duration
	slots            chan struct{}
	log              *slog.Logger
	scans            *prometheus.CounterVec
	seconds          prometheus.Histogram
}

// New makes a client; it does not connect.
func New(o Options) (*Client, error) {
	network, address, found := strings.Cut(o.Address, ":")
	if !found || address == "" || (network != "unix" && network != "tcp") {
		return nil, fmt.Errorf("clamd address %q: want unix:PATH or tcp:HOST:PORT", o.Address)
	}
	if o.Timeout < 0 || o.MaxConnections < 0 {
		return nil, errors.New("clamd: timeout and number of connections must not be negative")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultScan
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultAtOnce
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := promauto.With(o.Metrics)
	return &Client{
		network: network, address: address, timeout: o.Timeout, wait: maxWait, log: o.Logger,
		slots: make(chan struct{}, o.MaxConnections),
		scans: f.NewCounterVec(prometheus.CounterOpts{Name: "sealpost_scans_total",
			Help: "Virus scans by verdict; error: the scanner gave none."}, []string{"verdict"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{Name: "sealpost_scan_seconds",
			Help: "Time of a virus scan.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}),
	}, nil
}

// Scan streams r, of size bytes, to the scanner. An error means that there is no verdict.
func (c *Client) Scan(ctx context.Context, r io.Reader, size int64) (gateway.Scan, error) {
	if err := c.enter(ctx); err != nil {
		return gateway.Scan{}, err
	}
	defer func() { <-c.slots }()
	start := time.Now()
	scan, err := c.scan(ctx, r, size)
	if errors.Is(err, errTooSlow) && ctx.Err() == nil && c.Ping(ctx) == nil {
		scan, err = gateway.Scan{Verdict: gateway.ScanUnscanned}, nil
	}
	c.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		c.scans.WithLabelValues("error").Inc()
		return gateway.Scan{}, fmt.Errorf("virus scan: %w", err)
	}
	c.scans.WithLabelValues(string(scan.Verdict)).Inc()
	c.log.DebugContext(ctx, "mail scanned", "verdict", scan.Verdict, "signature", scan.Signature)
	return scan, nil
}

// enter waits for a free connection. That all are taken for long is an error as if the scanner were away, so that the
// caller's rule for that decides before its own time is over.
func (c *Client) enter(ctx context.Context) error {
	wait := time.NewTimer(c.wait)
	defer wait.Stop()
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-wait.C:
		c.scans.WithLabelValues("error").Inc()
		return errors.New("the virus scanner is busy with other mails")
	case <-ctx.Done():
		return fmt.Errorf("wait for the virus scanner: %w", ctx.Err())
	}
}

func (c *Client) scan(ctx context.Context, r io.Reader, size int64) (gateway.Scan, error) {
	var scan gateway.Scan
	err := c.dialogue(ctx, c.timeout, func(conn net.Conn) error {
		sent := stream(conn, r, size)
		if sent.source != nil {
			return fmt.Errorf("read the mail: %w", sent.source)
		}
		// clamd may answer and close before it has read all: its reply says more than our write error.
		reply, err := readReply(conn)
		if err != nil {
			return errors.Join(sent.peer, err)
		}
		scan, err = verdict(reply)
		if err == nil && sent.peer != nil && scan.Verdict == gateway.ScanClean {
			return fmt.Errorf("clean before the end of the mail: %w", sent.peer)
		}
		return err
	})
	return scan, err
}

// Ping tells whether the scanner answers.
func (c *Client) Ping(ctx context.Context) error {
	err := c.dialogue(ctx, min(c.timeout, pingTimeout), func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "zPING\x00"); err != nil {
			return err
		}
		reply, err := readReply(conn)
		if err == nil && reply != "PONG" {
			err = errors.New("unexpected reply")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("ping the virus scanner: %w", err)
	}
	return nil
}

// dialogue runs f on a new connection that ends with ctx or the timeout, which is errTooSlow.
func (c *Client) dialogue(ctx context.Context, timeout time.Duration, f func(net.Conn) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTooSlow)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, c.network, c.address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	// A past deadline wakes a blocked read or write; Close follows once, below.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = conn.Close() // what counts has been read by now
	}()
	if err := f(conn); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

// sendError keeps apart who failed: the mail's reader or the scanner's connection.
type sendError struct{ source, peer error }

// stream writes the command, the chunks (4 octets of length, big-endian, then data) and the empty chunk.
func stream(conn io.Writer, r io.Reader, size int64) sendError {
	if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
		return sendError{peer: err}
	}
	buf := make([]byte, 4+chunkSize)
	var sent int64
	for {
		n, err := io.ReadFull(r, buf[4:])
		sent += int64(n)
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := conn.Write(buf[:4+n]); err != nil {
				return sendError{peer: err}
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return sendError{source: err}
		}
	}
	if sent != size {
		return sendError{source: fmt.Errorf("%d bytes instead of %d", sent, size)}
	}
	_, err := conn.Write([]byte{0, 0, 0, 0})
	return sendError{peer: err}
}

// readReply reads up to the NUL that ends a reply to a z command.
func readReply(r io.Reader) (string, error) {
	reply, err := bufio.NewReader(io.LimitReader(r, maxReply)).ReadBytes(0)
	if err != nil {
		return "", fmt.Errorf("read the reply: %w", err)
	}
	return string(bytes.TrimRight(reply, "\x00\n")), nil
}

// verdict reads a reply to INSTREAM. An error names no reply, whose content is not to be trusted.
func verdict(reply string) (gateway.Scan, error) {
	if reply == "INSTREAM size limit exceeded. ERROR" {
		return gateway.Scan{Verdict: gateway.ScanUnscanned}, nil
	}
	said, found := strings.CutPrefix(reply, "stream: ")
	if found && said == "OK" {
		return gateway.Scan{Verdict: gateway.ScanClean}, nil
	}
	name, infected := strings.CutSuffix(said, " FOUND")
	if found && infected && strings.HasPrefix(name, exceedsMax) {
		return gateway.Scan{Verdict: gateway.ScanUnscanned}, nil
	}
	if found && infected {
		return gateway.Scan{Verdict: gateway.ScanInfected, Signature: printable(name)}, nil
	}
	return gateway.Scan{}, errors.New("the scanner's reply is not one that is known")
}

// printable keeps at most 200 visible ASCII characters; the finding counts whatever its name.
func printable(name string) string {
	name = strings.Map(func(c rune) rune {
		if c < 0x21 || c > 0x7e {
			return '?'
		}
		return c
	}, name)
	return name[:min(len(name), maxSignature)]
}
