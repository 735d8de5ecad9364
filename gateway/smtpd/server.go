package smtpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server is the SMTP front.
type Server struct {
	opts    Options
	metrics *metrics
	buffers *bufferPool
	plain   *engine // dialogues before STARTTLS
	secure  *engine // dialogues within TLS
	engines errgroup.Group

	rates *rates

	intake func() context.Context // ends with a hard stop
	abort  context.CancelFunc
	greet  func() context.Context // ends when the server begins to go down
	refuse context.CancelFunc

	mu        sync.Mutex
	draining  bool
	started   bool
	listeners map[net.Listener]struct{}
	sockets   map[*socket]struct{}
	dialogues map[*conn]struct{}
	clients   map[netip.Prefix]int
	wg        sync.WaitGroup // one for each socket
}

// New makes a server. It listens to nothing yet.
func New(options Options) (*Server, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(options.Metrics)
	if err != nil {
		return nil, err
	}
	intake, abort := context.WithCancel(context.Background())
	greet, refuse := context.WithCancel(intake)
	s := &Server{
		opts: options, metrics: m, buffers: newBufferPool(), rates: newRates(options.Limits.MailsPerClient),
		intake: func() context.Context { return intake }, abort: abort,
		greet: func() context.Context { return greet }, refuse: refuse,
		listeners: make(map[net.Listener]struct{}),
		sockets:   make(map[*socket]struct{}),
		dialogues: make(map[*conn]struct{}),
		clients:   make(map[netip.Prefix]int),
	}
	s.plain = s.newEngine(options.TLS)
	s.secure = s.newEngine(nil)
	return s, nil
}

// Serve takes connections from l until Shutdown, and then returns nil. It may be called once for each of
// several listeners. It owns l. After any other end, Shutdown must be called all the same.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS does what Serve does for connections that begin with TLS (RFC 8314 section 3.3). It needs
// Options.TLS.
func (s *Server) ServeTLS(l net.Listener) error {
	if s.opts.TLS == nil {
		return errors.Join(errors.New("smtpd: implicit TLS needs a certificate"), l.Close())
	}
	return s.serve(l, true)
}

func (s *Server) serve(l net.Listener, implicit bool) error {
	if !s.start(l) {
		return l.Close()
	}
	for {
		nc, err := l.Accept()
		down := s.greet().Err() != nil
		switch {
		case err == nil:
			s.admit(nc, implicit)
		case down && errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			s.opts.Logger.Error("connection not accepted", "error", err)
			s.pause(time.Second)
		default:
			return fmt.Errorf("accept SMTP connections: %w", err)
		}
	}
}

// isTemporary tells whether accept may work again later, as when there are no file descriptors left.
func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// pause waits for d, or until the server goes down.
func (s *Server) pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.greet(), d)
	defer cancel()
	<-ctx.Done()
}

func (s *Server) start(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = struct{}{}
	if !s.started {
		s.started = true
		s.engines.Go(s.plain.serve)
		s.engines.Go(s.secure.serve)
	}
	return true
}

// run has one dialogue, and settles its last mail.
func (s *Server) run(c *conn, e *engine) {
	defer c.settle(false)
	s.mu.Lock()
	s.dialogues[c] = struct{}{}
	if s.draining {
		c.drain()
	}
	s.mu.Unlock()
	e.hand(c)
	s.mu.Lock()
	delete(s.dialogues, c)
	s.mu.Unlock()
}

// Shutdown stops listening, answers 421 to whoever is not sending message text, and waits for the mails
// that are under way. When ctx ends it gives them up: connections are cut, the Handler's contexts end,
// and ctx's error is returned. Either way nothing of the server runs any more when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stopAccepting()
	idle := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		err = ctx.Err()
		s.cut()
		<-idle
	}
	s.abort()
	rest := context.WithoutCancel(ctx) // what is left to wait for takes no time
	if e := errors.Join(s.plain.stop(rest), s.secure.stop(rest), s.engines.Wait()); err == nil {
		err = e
	}
	return err
}

func (s *Server) stopAccepting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.refuse()
	var errs []error
	for l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("stop listening: %w", err))
		}
		delete(s.listeners, l)
	}
	for c := range s.dialogues {
		c.drain()
	}
	return errors.Join(errs...)
}

// cut ends every connection and every hand-over at once.
func (s *Server) cut() {
	s.abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sockets {
		_ = k.nc.Close() // its owner closes it again
	}
}
