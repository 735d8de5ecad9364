package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway/certificate"
	"sealpost/gateway/config"
)

func usesACME(cfg *config.Config) bool { return len(cfg.SMTP.TLS.ACME)+len(cfg.Portal.TLS.ACME) > 0 }

func newCertificates(ctx context.Context, cfg *config.Config, logger *slog.Logger, registry prometheus.Registerer) (*certificate.Store, error) {
	options := certificate.Options{Logger: logger, Metrics: registry}
	options.Files = slices.Concat(ownCertificates(cfg.SMTP.TLS).Files, ownCertificates(cfg.Portal.TLS).Files)
	if usesACME(cfg) {
		port, err := portOf(ctx, cfg.ACME.Listen)
		if err != nil {
			return nil, fmt.Errorf("acme.listen: %w", err)
		}
		options.ACME = &certificate.ACME{
			Directory: cfg.ACME.Directory, Email: cfg.ACME.Email, RootsFile: cfg.ACME.Roots,
			Names:   slices.Concat(cfg.SMTP.TLS.ACME, cfg.Portal.TLS.ACME),
			Storage: filepath.Join(cfg.Data, "acme"), HTTPPort: port, TLSALPNPort: tlsChallengePort(ctx, cfg),
		}
	}
	certificates, err := certificate.New(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("load the certificates: %w", err)
	}
	return certificates, nil
}

func ownCertificates(t config.TLS) certificate.Listener {
	own := certificate.Listener{ACME: t.ACME}
	for _, pair := range t.Pairs() {
		own.Files = append(own.Files, certificate.Pair{Cert: pair.Cert, Key: pair.Key})
	}
	return own
}

func portOf(ctx context.Context, address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return net.DefaultResolver.LookupPort(ctx, "tcp", port)
}

// tlsChallengePort is where a listener of ours answers TLS-ALPN-01, which is asked for on port 443 (RFC 8737
// section 3); 0: nowhere.
func tlsChallengePort(ctx context.Context, cfg *config.Config) int {
	const asked = 443
	if port, err := portOf(ctx, cfg.Portal.Listen); err == nil && port == asked && cfg.Portal.TLS.Enabled() {
		return asked
	}
	return 0
}

// tlsFor returns what a listener offers; nil when it has no certificate.
func (w *wiring) tlsFor(t config.TLS) *tls.Config {
	if !t.Enabled() {
		return nil
	}
	return w.certificates.TLSConfig(ownCertificates(t))
}
