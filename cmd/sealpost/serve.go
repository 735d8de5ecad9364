package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway/config"
	"sealpost/gateway/telemetry"
)

const (
	// stopGrace is how long running transactions may take to finish after a signal to stop.
	stopGrace = 30 * time.Second
	// beatEvery is how often the other nodes are told that this one lives. After a minute of silence its sessions count
	// as ended, so it may fall silent when it stops: stopGrace is shorter.
	beatEvery = 15 * time.Second
	// gcPercent: what lives is a few MiB, so that collecting less often costs little memory and saves a sixth of the CPU.
	gcPercent = 300
	// threadsPerCPU: a thread that waits for the disk holds its place in the scheduler for a while, so that with one for
	// each CPU they often idle. With two, ten connections take a tenth more mails a second.
	threadsPerCPU = 2
)

type serveCommand struct{ configFlag }

// Run runs the gateway until ctx ends.
func (c *serveCommand) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	logger, err := telemetry.NewLogger(std.err, cfg.Log.Format, cfg.Log.Level)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(threadsPerCPU * runtime.GOMAXPROCS(0))
	}
	return serve(ctx, cfg, logger, nil)
}

// serve runs a gateway until ctx ends or a part of it fails. It calls ready, if given, once mail is taken.
func serve(ctx context.Context, cfg *config.Config, logger *slog.Logger, ready func()) error {
	return serveWith(ctx, cfg, logger, ready, func(*stores) {})
}

// serveWith is serve with stores that adapt may put something in front of.
func serveWith(ctx context.Context, cfg *config.Config, logger *slog.Logger, ready func(), adapt func(*stores)) (err error) {
	opened, err := openStores(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	adapt(opened)
	g, err := newGateway(ctx, cfg, opened, logger)
	if err != nil {
		return err
	}
	listeners, err := listenAll(ctx, cfg)
	if err != nil {
		return err
	}
	return g.run(ctx, listeners, opened.meta.Beat, ready)
}

// listeners are the open ports of a gateway.
type listeners struct {
	smtp    []net.Listener
	smtpTLS []net.Listener // these begin with TLS
	portal  net.Listener
	metrics net.Listener // nil when there are no metrics
	acme    net.Listener // nil when no certificate comes from an ACME server
}

func listenAll(ctx context.Context, cfg *config.Config) (l listeners, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.smtp, err = listenEach(ctx, "smtp.listen", cfg.SMTP.Listen); err != nil {
		return l, err
	}
	if l.smtpTLS, err = listenEach(ctx, "smtp.listen_tls", cfg.SMTP.ListenTLS); err != nil {
		return l, err
	}
	if l.portal, err = listen(ctx, "portal.listen", cfg.Portal.Listen); err != nil {
		return l, err
	}
	if usesACME(cfg) {
		if l.acme, err = listen(ctx, "acme.listen", cfg.ACME.Listen); err != nil {
			return l, err
		}
	}
	if cfg.Metrics.Listen != "" {
		l.metrics, err = listen(ctx, "metrics.listen", cfg.Metrics.Listen)
	}
	return l, err
}

func listenEach(ctx context.Context, key string, addresses []string) ([]net.Listener, error) {
	var all []net.Listener
	for _, address := range addresses {
		listener, err := listen(ctx, key, address)
		if err != nil {
			return all, err
		}
		all = append(all, listener)
	}
	return all, nil
}

func (l listeners) close() error {
	var errs []error
	for _, listener := range append(slices.Concat(l.smtp, l.smtpTLS), l.portal, l.metrics, l.acme) {
		if listener != nil {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

func listen(ctx context.Context, key, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another program; stop that program or choose another port", key, address)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s: %s needs privileges; run with CAP_NET_BIND_SERVICE or choose a port above 1023", key, address)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return listener, nil
}

// run serves until ctx ends or a part fails, then stops in order: no new mail, running transactions and
// attempts finish, and only then is the rest closed.
func (g *gatewayNode) run(ctx context.Context, l listeners, beat func(context.Context) error, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	g.beatOnce(ctx, beat) // before the first session
	group.Go(func() error { return g.keepBeating(ctx, beat) })
	for _, listener := range l.smtp {
		group.Go(func() error { return named("serve SMTP", g.smtp.Serve(listener)) })
	}
	group.Go(func() error { return named("serve the portal", serveHTTP(g.portal, l.portal)) })
	for _, listener := range l.smtpTLS {
		group.Go(func() error { return named("serve SMTP with TLS", g.smtp.ServeTLS(listener)) })
	}
	if l.acme != nil {
		group.Go(func() error { return named("serve the challenges", serveHTTP(g.challenges, l.acme)) })
	}
	if l.metrics != nil {
		group.Go(func() error { return named("serve the metrics", serveHTTP(g.metrics, l.metrics)) })
	}
	group.Go(func() error { return named("deliver", g.relay.Run(ctx)) })
	group.Go(func() error { return named("sweep", g.sweeper.Run(ctx)) })
	if g.certificates != nil {
		group.Go(func() error { return named("look after the certificates", g.certificates.Run(ctx)) })
	}
	group.Go(func() error { return named("watch", g.alerts.Run(ctx)) })
	group.Go(func() error {
		g.returner.Run(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return g.stop(ctx)
	})
	g.readiness.Set(true)
	g.logger.InfoContext(ctx, "ready", "smtp", addresses(l.smtp), "portal", l.portal.Addr().String())
	if ready != nil {
		ready()
	}
	return group.Wait()
}

// keepBeating tells the other nodes that this one lives, until ctx ends.
func (g *gatewayNode) keepBeating(ctx context.Context, beat func(context.Context) error) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.beatOnce(ctx, beat)
		}
	}
}

// beatOnce logs a failure: the next beat comes soon, and the database's troubles show in readiness.
func (g *gatewayNode) beatOnce(ctx context.Context, beat func(context.Context) error) {
	if err := beat(ctx); err != nil && ctx.Err() == nil {
		g.logger.ErrorContext(ctx, "the other nodes cannot be told that this one lives", "error", err)
	}
}

func (g *gatewayNode) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	g.logger.InfoContext(ctx, "stopping")
	g.readiness.Set(false)
	return errors.Join(
		named("stop SMTP", g.smtp.Shutdown(ctx)),
		named("stop the portal", g.portal.Shutdown(ctx)),
		named("stop the metrics", g.metrics.Shutdown(ctx)),
		named("stop the challenges", g.challenges.Shutdown(ctx)),
	)
}

func serveHTTP(server *http.Server, listener net.Listener) error {
	serve := func() error { return server.Serve(listener) }
	if server.TLSConfig != nil {
		serve = func() error { return server.ServeTLS(listener, "", "") }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// named says which part failed, and leaves success alone.
func named(part string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	return nil
}

func addresses(listeners []net.Listener) []string {
	var all []string
	for _, listener := range listeners {
		all = append(all, listener.Addr().String())
	}
	return all
}
