package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/intake"
	"sealpost/gateway/policy"
	"sealpost/gateway/portal"
	"sealpost/gateway/relay"
	"sealpost/gateway/rewrite"
	"sealpost/gateway/smtpd"
	"sealpost/gateway/spool"
	"sealpost/gateway/telemetry"
)

// stopGrace is how long running transactions may take to finish after a signal to stop.
const stopGrace = 30 * time.Second

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
	g, err := newGateway(cfg, opened, logger)
	if err != nil {
		return err
	}
	listeners, err := listenAll(ctx, cfg)
	if err != nil {
		return err
	}
	return g.run(ctx, listeners, ready)
}

// gatewayNode is one running gateway: its parts, wired.
type gatewayNode struct {
	smtp      *smtpd.Server
	relay     *relay.Relay
	sweeper   *intake.Sweeper
	portal    *http.Server
	metrics   *http.Server
	readiness *telemetry.Readiness
	logger    *slog.Logger
}

func newGateway(cfg *config.Config, s *stores, logger *slog.Logger) (*gatewayNode, error) {
	sealer, err := newSealer(cfg, s.keyring)
	if err != nil {
		return nil, err
	}
	router, registry := newRouter(cfg), telemetry.NewRegistry()
	g := &gatewayNode{
		logger:    logger,
		sweeper:   intake.NewSweeper(s.meta, s.blobs, cfg.ReplayWindow.Std(), logger),
		relay:     newRelay(cfg, s, router, registry, logger),
		readiness: telemetry.NewReadiness(s.meta.Ping),
	}
	if g.smtp, err = newSMTP(cfg, s, sealer, router, registry, logger); err != nil {
		return nil, err
	}
	if g.portal, err = newPortal(cfg, s, g.readiness, registry, logger); err != nil {
		return nil, err
	}
	g.metrics = &http.Server{Handler: telemetry.MetricsHandler(registry), ReadHeaderTimeout: 10 * time.Second}
	return g, nil
}

func newSMTP(cfg *config.Config, s *stores, sealer *crypto.Sealer, router *router, registry prometheus.Registerer, logger *slog.Logger) (*smtpd.Server, error) {
	certificates, err := serverTLS(cfg.SMTP.TLS)
	if err != nil {
		return nil, fmt.Errorf("smtp.tls: %w", err)
	}
	waiting, err := spool.Open(filepath.Join(cfg.Data, "spool"))
	if err != nil {
		return nil, err
	}
	limits := cfg.SMTP.Limits
	rules := rewrite.Limits{HeaderBytes: int64(limits.HeaderSize), LineLength: int64(limits.LineLength), Depth: limits.Depth, Parts: limits.Parts}
	handler := intake.New(intake.Options{
		Hostname: cfg.Hostname, PortalURL: cfg.Portal.URL, ShowFilenames: cfg.Notice.Filenames == config.FilenamesShow,
		Limits: rules, Judge: policy.Default().Judge, Logger: logger, Metrics: registry,
	}, sealer, s.blobs, s.intake)
	front := smtpd.DefaultLimits()
	front.Recipients, front.Connections, front.ConnectionsPerClient = limits.Recipients, limits.Connections, limits.ConnectionsPerClient
	front.ReceivedFields = limits.ReceivedFields
	front.CommandIdle, front.DataIdle, front.DataTotal = limits.CommandIdle.Std(), limits.DataIdle.Std(), limits.DataTotal.Std()
	return smtpd.New(smtpd.Options{
		Hostname: cfg.Hostname, TLS: certificates, MaxMessageSize: int64(cfg.SMTP.MaxMessageSize), Limits: front,
		AllowFrom: cfg.SMTP.AllowFrom, TrustedRelays: cfg.SMTP.TrustedRelays, Router: router, Handler: handler, Logger: logger, Metrics: registry,
		NewSpooled: func() (gateway.Spooled, error) { return waiting.New(), nil },
	})
}

func newRelay(cfg *config.Config, s *stores, router *router, registry prometheus.Registerer, logger *slog.Logger) *relay.Relay {
	return relay.New(relay.Options{
		Hostname: cfg.Hostname, Owner: gateway.NewPackageID().String(), AwaitCase: cfg.ReplayWindow > 0,
		Route: router.Current, Wake: s.meta.Wake(), Logger: logger, Metrics: registry,
	}, s.queue, intake.NewCopies(s.blobs))
}

func newPortal(cfg *config.Config, s *stores, readiness *telemetry.Readiness, registry prometheus.Registerer, logger *slog.Logger) (*http.Server, error) {
	address, err := url.Parse(cfg.Portal.URL)
	if err != nil {
		return nil, fmt.Errorf("portal.url: %w", err)
	}
	certificates, err := serverTLS(cfg.Portal.TLS)
	if err != nil {
		return nil, fmt.Errorf("portal.tls: %w", err)
	}
	handler, err := portal.New(portal.Options{
		URL: address, TrustedProxies: cfg.Portal.TrustedProxies, Ready: readiness.Ready, Logger: logger, Metrics: registry,
	}, s.meta, s.meta.Sessions(), s.blobs, crypto.NewPasswords())
	if err != nil {
		return nil, err
	}
	server := portal.NewServer(handler, logger)
	server.TLSConfig = certificates
	return server, nil
}

// serverTLS loads a certificate; nil when none is configured.
func serverTLS(t config.TLS) (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil //nolint:nilnil // no certificate, no TLS
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate %s and its key: %w", t.Cert, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// listeners are the open ports of a gateway.
type listeners struct {
	smtp    []net.Listener
	portal  net.Listener
	metrics net.Listener // nil when there are no metrics
}

func listenAll(ctx context.Context, cfg *config.Config) (l listeners, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for _, address := range cfg.SMTP.Listen {
		listener, err := listen(ctx, "smtp.listen", address)
		if err != nil {
			return l, err
		}
		l.smtp = append(l.smtp, listener)
	}
	if l.portal, err = listen(ctx, "portal.listen", cfg.Portal.Listen); err != nil {
		return l, err
	}
	if cfg.Metrics.Listen != "" {
		l.metrics, err = listen(ctx, "metrics.listen", cfg.Metrics.Listen)
	}
	return l, err
}

func (l listeners) close() error {
	var errs []error
	for _, listener := range append(l.smtp, l.portal, l.metrics) {
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
func (g *gatewayNode) run(ctx context.Context, l listeners, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, listener := range l.smtp {
		group.Go(func() error { return named("serve SMTP", g.smtp.Serve(listener)) })
	}
	group.Go(func() error { return named("serve the portal", serveHTTP(g.portal, l.portal)) })
	if l.metrics != nil {
		group.Go(func() error { return named("serve the metrics", serveHTTP(g.metrics, l.metrics)) })
	}
	group.Go(func() error { return named("deliver", g.relay.Run(ctx)) })
	group.Go(func() error { return named("sweep", g.sweeper.Run(ctx)) })
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

func (g *gatewayNode) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	g.logger.InfoContext(ctx, "stopping")
	g.readiness.Set(false)
	return errors.Join(
		named("stop SMTP", g.smtp.Shutdown(ctx)),
		named("stop the portal", g.portal.Shutdown(ctx)),
		named("stop the metrics", g.metrics.Shutdown(ctx)),
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
