// Package sftest is a stand-in for a Salesforce org in tests and in the demo: it shows what Salesforce would
// receive, and what it would make of it. It is the mail half of an org: an SMTP server that takes mail and
// keeps it, or only its digest or size, and that can be told to fail in the ways real servers do.
//
// With Options.EmailToCase it then follows the documented rules of Email-to-Case: Cases and their mails,
// threading, the limits and what happens beyond them, the accept list, the loop rule. All of that comes after
// the 250, so that a 250 does not prove a Case. Without it, that it accepts a mail does not say that an org
// would. What is not documented is decided as a comment says. It is a leaf and uses nothing of the gateway.
package sftest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Mode says what an Org keeps of a mail.
type Mode int

// The modes.
const (
	Whole  Mode = iota // the raw mail, in memory
	Digest             // size and SHA-256
	Sink               // the size only
)

// Options say where an Org listens and how it behaves. The zero value listens on a free loopback port and
// takes everything.
type Options struct {
	Addr     string // "127.0.0.1:0"
	Hostname string // "org.test"
	Mode     Mode
	// OnMail is called for each accepted mail, before its reply is sent. Calls may overlap.
	OnMail func(Mail)
	// Recipients are the only accepted addresses (550 5.1.1 otherwise); empty: all.
	Recipients []string
	// MaxSize is the announced and enforced limit in bytes; 0: none.
	MaxSize int64
	// TLS offers STARTTLS.
	TLS *tls.Config

	// RefuseRcpt is the reply code to every RCPT; 0: none.
	RefuseRcpt int
	// FailFirst mails are answered with FailCode (451) after their final dot; they are not accepted.
	FailFirst int
	FailCode  int
	// DropAfterData mails, after those, are accepted, but the connection is cut instead of the reply.
	DropAfterData int
	// Delay is the time between a mail's end and its reply.
	Delay time.Duration
	// Without8BITMIME leaves the extension out of the reply to EHLO. It cannot be had together with TLS.
	Without8BITMIME bool
	// WithoutSMTPUTF8 leaves the extension out and refuses its parameter.
	WithoutSMTPUTF8 bool
	// EmailToCase makes Cases of the accepted mails; nil: they are only kept.
	EmailToCase *EmailToCase
}

// Mail is one accepted mail.
type Mail struct {
	From     string
	To       []string
	Hello    string
	TLS      bool
	EightBit bool // BODY=8BITMIME was given
	UTF8     bool // SMTPUTF8 was given
	Received time.Time
	// Raw is the mail as it came, in mode Whole. It is shared: do not change it.
	Raw  []byte
	Size int64
	// SHA256 is over the mail as it came, in the modes Whole and Digest.
	SHA256 [32]byte
}

// Org is a running stand-in. Its methods may be called from several goroutines.
type Org struct {
	opts     Options
	server   *smtp.Server
	listener *listener
	desk     *caseDesk // nil without Email-to-Case
	closing  chan struct{}
	served   chan error
	detach   func() bool // from Start's context
	once     sync.Once
	closed   error

	mu      sync.Mutex
	mails   []Mail
	arrived chan struct{} // closed and replaced with each mail
	failed  int
	dropped int
}

// Start listens and serves until Close is called or ctx ends.
func Start(ctx context.Context, opts Options) (*Org, error) {
	if opts.Without8BITMIME && opts.TLS != nil {
		return nil, errors.New("without 8BITMIME there is no TLS")
	}
	if opts.EmailToCase != nil && opts.Mode != Whole {
		return nil, errors.New("Email-to-Case needs the whole mail")
	}
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	if opts.Hostname == "" {
		opts.Hostname = "org.test"
	}
	if opts.FailCode == 0 {
		opts.FailCode = 451
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for mail: %w", err)
	}
	o := &Org{
		opts:     opts,
		listener: &listener{Listener: l, hide8BitMIME: opts.Without8BITMIME, conns: map[net.Conn]struct{}{}},
		closing:  make(chan struct{}),
		served:   make(chan error, 1),
		arrived:  make(chan struct{}),
	}
	if opts.EmailToCase != nil {
		o.desk = newCaseDesk(ctx, *opts.EmailToCase, opts.Hostname)
	}
	o.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{org: o, conn: c}, nil
	}))
	o.server.Domain = opts.Hostname
	o.server.TLSConfig = opts.TLS
	o.server.EnableSMTPUTF8 = !opts.WithoutSMTPUTF8
	o.server.MaxMessageBytes = opts.MaxSize
	o.server.MaxLineLength = 1 << 20
	o.server.ReadTimeout = 10 * time.Minute
	o.server.WriteTimeout = time.Minute
	o.server.ErrorLog = log.New(io.Discard, "", 0) // broken connections are what it is tested with
	go func() { o.served <- o.server.Serve(o.listener) }()
	o.detach = context.AfterFunc(ctx, func() { _ = o.shut(context.WithoutCancel(ctx)) })
	return o, nil
}

// Addr is the host and port that it listens on.
func (o *Org) Addr() string { return o.listener.Addr().String() }

// Mails returns the mails accepted so far, in the order they came.
func (o *Org) Mails() []Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.mails)
}

// Wait returns the mails accepted so far, once there are at least n of them.
func (o *Org) Wait(ctx context.Context, n int) ([]Mail, error) {
	for {
		o.mu.Lock()
		mails, arrived := slices.Clone(o.mails), o.arrived
		o.mu.Unlock()
		if len(mails) >= n {
			return mails, nil
		}
		select {
		case <-arrived:
		case <-o.closing:
			return mails, fmt.Errorf("closed after %d of %d mails", len(mails), n)
		case <-ctx.Done():
			return mails, fmt.Errorf("%d of %d mails came: %w", len(mails), n, ctx.Err())
		}
	}
}

// Close stops listening, cuts all connections, and returns when all of its goroutines have ended.
func (o *Org) Close() error {
	o.detach()
	return o.shut(context.Background())
}

func (o *Org) shut(ctx context.Context) error {
	o.once.Do(func() {
		close(o.closing)
		o.listener.cut()
		// With the listener and the connections closed, this only waits.
		err := o.server.Shutdown(ctx)
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		if serveErr := <-o.served; serveErr != nil && !errors.Is(serveErr, net.ErrClosed) {
			err = errors.Join(err, serveErr)
		}
		if o.desk != nil {
			o.desk.close()
		}
		o.closed = err
	})
	return o.closed
}

func (o *Org) known(address string) bool {
	if o.opts.EmailToCase != nil {
		return o.opts.EmailToCase.known(address)
	}
	return len(o.opts.Recipients) == 0 || contains(o.opts.Recipients, address)
}

// verdict decides what becomes of a mail that has come in whole, and keeps it if it is accepted.
func (o *Org) verdict(m Mail) (fail, drop bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed < o.opts.FailFirst {
		o.failed++
		return true, false
	}
	if o.dropped < o.opts.DropAfterData {
		o.dropped++
		drop = true
	}
	o.mails = append(o.mails, m)
	close(o.arrived)
	o.arrived = make(chan struct{})
	return false, drop
}
