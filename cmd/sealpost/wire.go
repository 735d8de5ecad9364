package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/alert"
	"sealpost/gateway/certificate"
	"sealpost/gateway/clamd"
	"sealpost/gateway/config"
	"sealpost/gateway/downgrade"
	"sealpost/gateway/dsn"
	"sealpost/gateway/intake"
	"sealpost/gateway/portal"
	"sealpost/gateway/relay"
	"sealpost/gateway/rewrite"
	"sealpost/gateway/senderauth"
	"sealpost/gateway/smtpd"
	"sealpost/gateway/spool"
	"sealpost/gateway/srs"
	"sealpost/gateway/telemetry"
)

// gatewayNode is one running gateway: its parts, wired.
type gatewayNode struct {
	smtp         *smtpd.Server
	relay        *relay.Relay
	sweeper      *intake.Sweeper
	portal       *http.Server
	metrics      *http.Server
	challenges   *http.Server
	certificates *certificate.Store // nil when nothing has TLS
	alerts       *alert.Watch
	returner     *returner
	readiness    *telemetry.Readiness
	logger       *slog.Logger
}

// wiring is what the parts share while they are made.
type wiring struct {
	cfg          *config.Config
	stores       *stores
	router       *router
	returner     *returner
	back         *srs.Rewriter
	scanner      *clamd.Client             // nil without a scanner
	senders      *senderauth.Authenticator // nil when senders are not judged
	certificates *certificate.Store        // nil when nothing has TLS
	resolver     *net.Resolver
	registry     *prometheus.Registry
	logger       *slog.Logger
}

func newWiring(ctx context.Context, cfg *config.Config, s *stores, logger *slog.Logger) (*wiring, error) {
	w := &wiring{cfg: cfg, stores: s, resolver: newResolver(cfg), registry: s.registry, logger: logger}
	var err error
	if w.back, err = newSRS(cfg); err != nil {
		return nil, err
	}
	if w.router, err = newRouter(cfg, w.back); err != nil {
		return nil, err
	}
	w.returner = newReturner(ctx, cfg.Hostname, w.router, s.meta, logger)
	if cfg.Scan.Clamd != "" {
		if w.scanner, err = newScanner(cfg, logger, w.registry); err != nil {
			return nil, err
		}
	}
	if cfg.Authentication.Enabled {
		w.senders = senderauth.New(senderauth.Options{
			AuthservID: cfg.Hostname, Resolver: w.resolver, TrustedIDs: cfg.Authentication.TrustedIDs, Logger: logger, Metrics: w.registry,
		})
	}
	if cfg.SMTP.TLS.Enabled() || cfg.Portal.TLS.Enabled() {
		w.certificates, err = newCertificates(ctx, cfg, logger, w.registry)
	}
	return w, err
}

func newGateway(ctx context.Context, cfg *config.Config, s *stores, logger *slog.Logger) (*gatewayNode, error) {
	w, err := newWiring(ctx, cfg, s, logger)
	if err != nil {
		return nil, err
	}
	taking, err := w.intake()
	if err != nil {
		return nil, err
	}
	g := &gatewayNode{
		logger:       logger,
		sweeper:      intake.NewSweeper(s.meta, s.blobs, cfg.ReplayWindow.Std(), logger),
		certificates: w.certificates,
		alerts:       w.alerts(taking),
		returner:     w.returner,
		readiness:    telemetry.NewReadiness(s.meta.Ping),
		metrics:      &http.Server{Handler: telemetry.MetricsHandler(w.registry), ReadHeaderTimeout: 10 * time.Second},
		challenges:   &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 10 * time.Second},
	}
	if w.certificates != nil {
		g.challenges.Handler = w.certificates.HTTPChallenge(http.NotFoundHandler())
	}
	if g.relay, err = w.relay(); err != nil {
		return nil, err
	}
	if g.smtp, err = w.smtp(taking); err != nil {
		return nil, err
	}
	g.portal, err = w.portal(ctx, g.readiness)
	return g, err
}

func newScanner(cfg *config.Config, logger *slog.Logger, metrics prometheus.Registerer) (*clamd.Client, error) {
	client, err := clamd.New(clamd.Options{Address: cfg.Scan.Clamd, Logger: logger, Metrics: metrics})
	if err != nil {
		return nil, fmt.Errorf("scan.clamd: %w", err)
	}
	return client, nil
}

func (w *wiring) intake() (*intake.Intake, error) {
	sealer, err := newSealer(w.cfg, w.stores.keyring)
	if err != nil {
		return nil, err
	}
	options, err := w.intakeOptions()
	if err != nil {
		return nil, err
	}
	return intake.New(options, sealer, w.stores.blobs, w.stores.intake), nil
}

// commonOptions are what a mail is judged by, wherever it comes from.
func commonOptions(cfg *config.Config) (intake.Options, error) {
	limits := cfg.SMTP.Limits
	rules, err := newRules(cfg.Policy)
	if err != nil {
		return intake.Options{}, err
	}
	template, err := readTemplate(cfg.Notice)
	if err != nil {
		return intake.Options{}, err
	}
	return intake.Options{
		Hostname: cfg.Hostname, ShowFilenames: cfg.Notice.Filenames == config.FilenamesShow,
		NoticePlace: rewrite.Place(cfg.Notice.Place), NoticeTemplate: template,
		Limits: rewrite.Limits{HeaderBytes: int64(limits.HeaderSize), LineLength: int64(limits.LineLength), Depth: limits.Depth, Parts: limits.Parts},
		Rules:  rules,
		IsOurs: func(value string) bool { return senderauth.IsOurs(value, cfg.Hostname) },
	}, nil
}

func (w *wiring) intakeOptions() (intake.Options, error) {
	options, err := commonOptions(w.cfg)
	if err != nil {
		return options, err
	}
	options.Logger, options.Metrics = w.logger, w.registry
	options.OnVirus, options.ScannerDown = gateway.Reject, gateway.Defer
	options.Returner = w.returner
	options.ReturnDomain = w.cfg.SRS.Domain
	options.FingerprintKey = w.stores.keyring.Lookup("fingerprints", "key")
	if w.senders != nil {
		options.Authenticator = authenticator{w.senders}
	}
	if w.scanner != nil {
		options.Scanner = w.scanner
	}
	if w.cfg.Scan.OnVirus == config.VirusSeal {
		options.OnVirus = gateway.Seal
	}
	if w.cfg.Scan.ScannerDown == config.ScannerPass {
		options.ScannerDown = gateway.Keep
	}
	return options, nil
}

// authenticator joins the two packages' views of a mail.
type authenticator struct{ senders *senderauth.Authenticator }

func (a authenticator) Authenticate(ctx context.Context, envelope gateway.Envelope, mail intake.Mail) (gateway.Authentication, []byte, error) {
	return a.senders.Authenticate(ctx, envelope, mail)
}

func (w *wiring) smtp(handler smtpd.Handler) (*smtpd.Server, error) {
	waiting, err := spool.Open(filepath.Join(w.cfg.Data, "spool"))
	if err != nil {
		return nil, err
	}
	smtp := w.cfg.SMTP
	front := smtpd.DefaultLimits()
	front.Recipients, front.Connections = smtp.Limits.Recipients, smtp.Limits.Connections
	front.ConnectionsPerClient, front.MailsPerClient = smtp.Limits.ConnectionsPerClient, smtp.Limits.MailsPerClient
	front.ReceivedFields = smtp.Limits.ReceivedFields
	front.CommandIdle, front.DataIdle, front.DataTotal = smtp.Limits.CommandIdle.Std(), smtp.Limits.DataIdle.Std(), smtp.Limits.DataTotal.Std()
	return smtpd.New(smtpd.Options{
		Hostname: w.cfg.Hostname, TLS: w.tlsFor(smtp.TLS), MaxMessageSize: int64(smtp.MaxMessageSize), Limits: front,
		NormalizeNewlines: smtp.BareNewlines == config.NewlinesNormalize,
		AllowFrom:         smtp.AllowFrom, TrustedRelays: smtp.TrustedRelays, ProxyFrom: smtp.ProxyFrom,
		Router: w.router, Handler: handler, Refused: w.stores.meta.RecordRefusal, Logger: w.logger, Metrics: w.registry,
		NewSpooled: func() (gateway.Spooled, error) { return waiting.New(), nil },
	})
}

// relayRoots are what a next hop's certificate is verified by: the system's certificates and those of relay.roots. Nil:
// the system's alone.
func relayRoots(cfg *config.Config) (*x509.CertPool, error) {
	if cfg.Relay.Roots == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.Relay.Roots)
	if err != nil {
		return nil, fmt.Errorf("relay.roots: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("relay.roots: there is no certificate in %s", cfg.Relay.Roots)
	}
	return roots, nil
}

// awaitsCase reports whether mail of a route is to become a Case: not the postmaster's, nor what goes back to senders.
func (w *wiring) awaitsCase(route string) bool {
	return w.cfg.ReplayWindow > 0 && route != config.PostmasterAddress && route != gateway.ReturnRoute
}

func (w *wiring) relay() (*relay.Relay, error) {
	roots, err := relayRoots(w.cfg)
	if err != nil {
		return nil, err
	}
	options := relay.Options{
		Hostname: w.cfg.Hostname, Owner: gateway.NewPackageID().String(), AwaitCase: w.awaitsCase, Roots: roots,
		Workers: w.cfg.Relay.Workers, HopConnections: w.cfg.Relay.ConnectionsPerHop, Resolver: w.resolver,
		Route: w.router.Current, ReturnHop: w.router.returnHop, DelayAfter: w.cfg.Notices.DelayAfter.Std(),
		Downgrade: downgrade.Plan, DowngradeAddress: downgrade.Address,
		Wake: w.stores.meta.Wake(), Look: w.stores.meta.LookInterval(), Logger: w.logger, Metrics: w.registry,
	}
	if w.cfg.Notices.Enabled {
		options.Reporter = dsn.Writer{Hostname: w.cfg.Hostname}
	}
	if w.back != nil {
		options.ReturnPath = w.back.Forward
	}
	return relay.New(options, w.stores.queue, intake.NewCopies(w.stores.blobs)), nil
}

func (w *wiring) portal(ctx context.Context, readiness *telemetry.Readiness) (*http.Server, error) {
	address, err := url.Parse(w.cfg.Portal.URL)
	if err != nil {
		return nil, fmt.Errorf("portal.url: %w", err)
	}
	options := portal.Options{
		URL: address, TrustedProxies: w.cfg.Portal.TrustedProxies, Ready: readiness.Ready, Logger: w.logger, Metrics: w.registry,
	}
	if w.cfg.Portal.DirectDownloads {
		if options.Direct, err = newDirect(ctx, w.stores.blobs); err != nil {
			return nil, err
		}
	}
	for i, route := range w.cfg.Routes {
		other, err := url.Parse(route.PortalURL)
		if err != nil {
			return nil, fmt.Errorf("routes[%d].portal_url: %w", i, err)
		}
		options.OtherURLs = append(options.OtherURLs, other)
	}
	handler, err := portal.New(options, w.stores.meta, w.stores.meta.Sessions(), w.stores.blobs, crypto.NewPasswords())
	if err != nil {
		return nil, err
	}
	server := portal.NewServer(handler, w.logger)
	if server.TLSConfig = w.tlsFor(w.cfg.Portal.TLS); server.TLSConfig != nil {
		server.TLSConfig.NextProtos = append([]string{"h2", "http/1.1"}, server.TLSConfig.NextProtos...)
	}
	return server, nil
}
