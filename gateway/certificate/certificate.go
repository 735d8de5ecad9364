// Package certificate hands out TLS certificates by name, from files or by ACME (RFC 8555), and renews them
// without a restart. It is a package of its own since SMTP and the portal share one store.
//
// A name finds a file that names it exactly, then ACME, then a wildcard file. Of equals a listener's own comes
// first, and so does its own default for clients that send no name or one that is unknown here. A changed pair
// that cannot be read leaves the old one in use.
//
// Run waits for the upkeep of ACME certificates to end. An order at the CA that runs at that moment cannot be
// waited for, since certmagic keeps its workers to itself: it ends soon after its context, and what it has
// stored by then is whole, since certmagic stores by renaming.
package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const alpnChallenge = "acme-tls/1" // RFC 8737 section 6.2

// Pair names the PEM files of one certificate (with its chain) and its key.
type Pair struct{ Cert, Key string }

// ACME says where certificates for Names come from.
type ACME struct {
	Directory string // the CA's URL; empty: Let's Encrypt
	Email     string
	Names     []string
	Storage   string // directory for account and certificates
	RootsFile string // PEM, trust for the CA's own TLS; empty: the system's
	// HTTPPort is the local port where HTTPChallenge answers; 0: 80.
	HTTPPort int
	// TLSALPNPort is the local port where a server with TLSConfig answers TLS-ALPN-01 (RFC 8737), to which the
	// CA's port 443 must lead; 0: that challenge is not offered.
	TLSALPNPort int
}

// Options configure a Store.
type Options struct {
	Files    []Pair
	ACME     *ACME         // nil: files only
	Interval time.Duration // between looks at the files; 0: 5 s
	Logger   *slog.Logger  // nil: silent
	Metrics  prometheus.Registerer
}

// Listener says which of a Store's certificates are one listener's own. The zero value has none.
type Listener struct {
	Files []Pair
	ACME  []string // names
}

// Info describes a certificate in use.
type Info struct {
	Names    []string
	NotAfter time.Time
	Source   string // "file PATH" or "acme"
}

// Store holds the certificates. It is safe for concurrent use.
type Store struct {
	interval time.Duration
	log      *slog.Logger
	reloads  *prometheus.CounterVec
	mu       sync.RWMutex
	files    []*file
	names    []string // of ACME, lower case
	magic    *certmagic.Config
	issuer   *certmagic.ACMEIssuer
	cache    *certmagic.Cache
	stopping sync.Once // of cache
}

// New reads all files, each of which must be good now. With ACME, Run obtains what is missing, and the
// Store's upkeep ends with ctx.
func New(ctx context.Context, o Options) (*Store, error) {
	s := &Store{interval: o.Interval, log: o.Logger}
	if s.interval <= 0 {
		s.interval = 5 * time.Second
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if len(o.Files) == 0 && (o.ACME == nil || len(o.ACME.Names) == 0) {
		return nil, errors.New("no certificate files and no ACME names")
	}
	for _, pair := range o.Files {
		f := &file{pair: pair}
		if err := f.load(); err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
	}
	s.reloads = promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{Name: "sealpost_certificate_reloads_total",
		Help: "Changed certificate files, by result."}, []string{"result"})
	if o.ACME != nil && len(o.ACME.Names) > 0 {
		if err := s.startACME(ctx, o.ACME); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// startACME sets up certmagic with instances of our own.
func (s *Store) startACME(ctx context.Context, o *ACME) error {
	var roots *x509.CertPool
	if o.RootsFile != "" {
		pem, err := os.ReadFile(o.RootsFile)
		if err != nil {
			return fmt.Errorf("trust for the ACME server: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("trust for the ACME server: no certificate in %s", o.RootsFile)
		}
	}
	if o.Storage == "" {
		return errors.New("ACME needs a storage directory")
	}
	if err := os.MkdirAll(o.Storage, 0o700); err != nil {
		return fmt.Errorf("ACME storage: %w", err)
	}
	for _, name := range o.Names {
		s.names = append(s.names, canonical(name))
	}
	directory := o.Directory
	if directory == "" {
		directory = certmagic.LetsEncryptProductionCA
	}
	logger := bridge(s.log)
	s.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return s.magic, nil },
		Logger:           logger,
	})
	context.AfterFunc(ctx, s.stopUpkeep)
	s.magic = certmagic.New(s.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: o.Storage}, Logger: logger,
		OCSP:              certmagic.OCSPConfig{DisableStapling: true},
		DefaultServerName: s.names[0], FallbackServerName: s.names[0],
	})
	s.issuer = certmagic.NewACMEIssuer(s.magic, certmagic.ACMEIssuer{
		CA: directory, TestCA: directory, Email: o.Email, Agreed: true, TrustedRoots: roots,
		AltHTTPPort: o.HTTPPort, AltTLSALPNPort: o.TLSALPNPort, DisableTLSALPNChallenge: o.TLSALPNPort == 0, Logger: logger,
	})
	s.magic.Issuers = []certmagic.Issuer{s.issuer}
	return nil
}

// stopUpkeep ends certmagic's upkeep and returns when it has ended.
func (s *Store) stopUpkeep() { s.stopping.Do(s.cache.Stop) }

// Run looks at the files every Interval and obtains and renews what ACME is to give, until ctx ends. With ACME
// it may be called once.
func (s *Store) Run(ctx context.Context) error {
	if s.magic != nil {
		defer s.stopUpkeep()
		if err := s.magic.ManageAsync(ctx, s.names); err != nil {
			return fmt.Errorf("manage ACME certificates: %w", err)
		}
	}
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.refresh(ctx)
		}
	}
}

// refresh reads the pairs whose files changed.
func (s *Store) refresh(ctx context.Context) {
	for i, old := range s.files {
		f := &file{pair: old.pair}
		if now := f.look(); now == old.seen {
			continue
		}
		err := f.load()
		result := "ok"
		if err != nil {
			f.cert, result = old.cert, "error"
			s.log.ErrorContext(ctx, "changed certificate is not usable; the old one stays in use", "error", err)
		} else {
			s.log.InfoContext(ctx, "certificate read again", "file", f.pair.Cert, "not_after", f.cert.Leaf.NotAfter)
		}
		s.reloads.WithLabelValues(result).Inc()
		s.mu.Lock()
		s.files[i] = f
		s.mu.Unlock()
	}
}

// TLSConfig returns the configuration of one listener's server, which always hands out the current
// certificates. The caller may change it.
func (s *Store) TLSConfig(l Listener) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.get(l, hello)
	}}
	if s.magic != nil {
		// A server that speaks HTTP puts its own protocols before this one.
		c.NextProtos = []string{alpnChallenge}
	}
	return c
}

func (s *Store) get(l Listener, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := canonical(hello.ServerName)
	if s.magic != nil && slices.Contains(hello.SupportedProtos, alpnChallenge) {
		return s.magic.GetCertificate(hello)
	}
	files := s.filesFor(l)
	if cert := find(files, name, false); cert != nil {
		return cert, nil
	}
	if slices.Contains(s.names, name) {
		if cert, err := s.magic.GetCertificate(hello); err == nil || len(files) == 0 {
			return cert, err
		}
	}
	if cert := find(files, name, true); cert != nil {
		return cert, nil
	}
	return s.byDefault(l, files, hello)
}

// byDefault returns the first certificate of the listener's own, or else of all.
func (s *Store) byDefault(l Listener, files []*file, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	asked := *hello
	switch {
	case s.magic == nil || len(files) > 0 && (len(l.Files) > 0 || len(l.ACME) == 0):
		return files[0].cert, nil
	case len(l.ACME) > 0:
		asked.ServerName = l.ACME[0]
	}
	cert, err := s.magic.GetCertificate(&asked)
	if err != nil && len(files) > 0 { // not obtained yet
		return files[0].cert, nil
	}
	return cert, err
}

// filesFor returns all files, those of the listener first and in its order.
func (s *Store) filesFor(l Listener) []*file {
	s.mu.RLock()
	files := slices.Clone(s.files)
	s.mu.RUnlock()
	rank := func(f *file) int {
		if i := slices.Index(l.Files, f.pair); i >= 0 {
			return i
		}
		return len(l.Files)
	}
	slices.SortStableFunc(files, func(a, b *file) int { return rank(a) - rank(b) })
	return files
}

func find(files []*file, name string, wildcard bool) *tls.Certificate {
	for _, f := range files {
		if f.names(name, wildcard) {
			return f.cert
		}
	}
	return nil
}

// Certificates lists what is in use, for the admin and for alerts. An ACME name without one is left out.
func (s *Store) Certificates() []Info {
	var infos []Info
	s.mu.RLock()
	for _, f := range s.files {
		infos = append(infos, Info{f.cert.Leaf.DNSNames, f.cert.Leaf.NotAfter, "file " + f.pair.Cert})
	}
	s.mu.RUnlock()
	for _, name := range s.names {
		for _, c := range s.cache.AllMatchingCertificates(name) {
			infos = append(infos, Info{c.Names, c.Leaf.NotAfter, "acme"})
		}
	}
	return infos
}

// HTTPChallenge answers HTTP-01 challenges (RFC 8555 section 8.3) and hands all else to next.
func (s *Store) HTTPChallenge(next http.Handler) http.Handler {
	if s.issuer == nil {
		return next
	}
	return s.issuer.HTTPChallengeHandler(next)
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
