package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealpost/gateway/config"
	"sealpost/storage/blob"
)

type checkCommand struct{ configFlag }

// level is how bad a finding is.
type level string

const (
	levelOK      level = "ok"
	levelWarning level = "warning"
	levelError   level = "error"
)

// checker prints one line for each thing it looked at.
type checker struct {
	cfg      *config.Config
	resolver *net.Resolver
	out      io.Writer
	errors   int
	failed   error // of writing
	// confirmed is when the recovery key was said to be offline, as the database has it.
	confirmed time.Time
}

func (c *checker) say(l level, key, format string, args ...any) {
	if l == levelError {
		c.errors++
	}
	if _, err := fmt.Fprintf(c.out, "%-8s %s: %s\n", l, key, fmt.Sprintf(format, args...)); err != nil && c.failed == nil {
		c.failed = err
	}
}

// Run looks at everything that can be looked at without sending a mail. It changes nothing but that the
// database is brought to this version's schema, as `serve` would.
func (cmd *checkCommand) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(cmd.Config)
	if err != nil {
		return err
	}
	c := &checker{cfg: cfg, resolver: newResolver(cfg), out: std.out}
	c.say(levelOK, "configuration", "%s", cmd.Config)
	c.data()
	c.keys(ctx)
	c.recoveryKey()
	c.certificate("smtp.tls", cfg.SMTP.TLS, cfg.Hostname)
	if address, err := url.Parse(cfg.Portal.URL); err == nil {
		c.certificate("portal.tls", cfg.Portal.TLS, address.Hostname())
	}
	c.proxy()
	c.expiry()
	c.mailForms()
	c.ports(ctx)
	c.clock()
	c.names(ctx)
	c.scanner(ctx)
	c.nextHops(ctx)
	if c.failed != nil {
		return c.failed
	}
	if c.errors > 0 {
		return fmt.Errorf("%d errors; the gateway would not work as configured", c.errors)
	}
	return nil
}

// lowSpace is the free space below which check warns.
const lowSpace = 1 << 30

func (c *checker) data() {
	var fs unix.Statfs_t
	if err := unix.Statfs(c.cfg.Data, &fs); err != nil {
		c.say(levelError, "data", "%s: %v; make the directory, owned by the user that runs sealpost", c.cfg.Data, err)
		return
	}
	if err := unix.Access(c.cfg.Data, unix.W_OK|unix.X_OK); err != nil {
		c.say(levelError, "data", "%s is not writable: %v; make it owned by the user that runs sealpost", c.cfg.Data, err)
		return
	}
	free := int64(fs.Bavail) * fs.Bsize
	if free < lowSpace {
		c.say(levelWarning, "data", "only %s free at %s; when it is full, mail is put off (452)", humanSize(free), c.cfg.Data)
		return
	}
	c.say(levelOK, "data", "%s, %s free", c.cfg.Data, humanSize(free))
}

// keys looks at the keyring, the recovery keys and the database that they open.
func (c *checker) keys(ctx context.Context) {
	keyring, err := readKeyring(c.cfg.Keyring)
	if err != nil {
		c.say(levelError, "keyring", "%v", err)
		return
	}
	if info, err := os.Stat(c.cfg.Keyring); err == nil && info.Mode().Perm()&0o077 != 0 {
		c.say(levelError, "keyring", "%s can be read by other users; chmod 600 %[1]s", c.cfg.Keyring)
	} else {
		c.say(levelOK, "keyring", "%s", c.cfg.Keyring)
	}
	if _, err := newSealer(c.cfg, keyring); err != nil {
		c.say(levelError, "recovery_keys", "%v", err)
	} else {
		c.say(levelOK, "recovery_keys", "%d files", len(c.cfg.RecoveryKeys))
	}
	s, err := openStores(ctx, c.cfg)
	if err != nil {
		c.say(levelError, "database", "%v", err)
		return
	}
	c.bucket(ctx, s.blobs)
	var unread error
	c.confirmed, unread = confirmedInDatabase(ctx, s.meta)
	agents, err := s.meta.ListAgents(ctx)
	switch err = errors.Join(err, unread, s.Close()); {
	case err != nil:
		c.say(levelError, "database", "%v", err)
	case len(agents) == 0:
		c.say(levelWarning, "agents", "there are none, so nobody can open a link; sealpost agent add ADDRESS --config FILE")
	default:
		c.say(levelOK, "database", "opens, %d agents", len(agents))
	}
}

// bucket tries all that an S3 bucket must allow; a directory has been looked at.
func (c *checker) bucket(ctx context.Context, blobs blob.Store) {
	bucket, ok := blobs.(*blob.S3)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 6*lookLimit)
	defer cancel()
	switch err := bucket.Check(ctx); {
	case errors.Is(err, blob.ErrVersions):
		c.say(levelWarning, "blobs", "%v; let a lifecycle rule expire them, or what was erased stays", err)
	case err != nil:
		c.say(levelError, "blobs", "%v", err)
		return
	default:
		c.say(levelOK, "blobs", "the bucket takes, gives and deletes")
	}
	if !c.cfg.Portal.DirectDownloads {
		return
	}
	origins := []string{c.cfg.Portal.URL}
	for _, route := range c.cfg.Routes {
		if !slices.Contains(origins, route.PortalURL) {
			origins = append(origins, route.PortalURL)
		}
	}
	for _, origin := range origins {
		if err := bucket.CheckCORS(ctx, strings.TrimSuffix(origin, "/")); err != nil {
			c.say(levelError, "direct downloads", "%v", err)
			continue
		}
		c.say(levelOK, "direct downloads", "pages of %s may fetch from the bucket", origin)
	}
}

// recoveryKey looks whether the private recovery key is still on this host.
func (c *checker) recoveryKey() {
	state, err := readRecoveryState(c.cfg.Data)
	if !c.confirmed.IsZero() {
		state.Confirmed = c.confirmed
	}
	switch {
	case err != nil:
		c.say(levelError, "recovery key", "%v", err)
	case !state.privateKeyOnHost() && state.Confirmed.IsZero():
		c.say(levelWarning, "recovery key", "nobody has confirmed that the private key is safe offline; sealpost recovery confirm --config FILE")
	case !state.privateKeyOnHost():
		c.say(levelOK, "recovery key", "the private key is offline, confirmed %s", state.Confirmed.Format(time.DateOnly))
	case state.Confirmed.IsZero():
		c.say(levelWarning, "recovery key", "the private key lies readable at %s; move it off this host, then run sealpost recovery confirm", state.KeyFile)
	default:
		c.say(levelError, "recovery key", "the private key was confirmed to be offline and lies readable at %s; whoever reads this host opens every package", state.KeyFile)
	}
}

// proxy looks whether log-in limits would take all agents for one client.
func (c *checker) proxy() {
	p := c.cfg.Portal
	if strings.HasPrefix(p.URL, "https:") && !p.TLS.Enabled() && len(p.TrustedProxies) == 0 {
		c.say(levelWarning, "portal.trusted_proxies", "the portal is behind a proxy that is not named: failed log-ins of anyone count against everyone; name its network")
	}
}

// expiry looks whether packages could expire before their mail is given up.
func (c *checker) expiry() {
	for _, route := range c.cfg.Routes {
		if route.ExpireAfter.Std() < 6*24*time.Hour {
			c.say(levelWarning, "expire_after", "%s: %s is shorter than the five days that a mail may wait; its link could have expired when it arrives", route.Address, route.ExpireAfter)
		}
	}
}

// soon is how long before its end check warns of a certificate.
const soon = 21 * 24 * time.Hour

func (c *checker) certificate(key string, t config.TLS, name string) {
	named := len(t.ACME) > 0 && slices.Contains(t.ACME, name)
	for _, pair := range t.Pairs() {
		leaf, err := readCertificate(pair)
		switch {
		case err != nil:
			c.say(levelError, key, "%v", err)
			continue
		case time.Now().After(leaf.NotAfter):
			c.say(levelError, key, "%s expired on %s; renew it", pair.Cert, leaf.NotAfter.Format(time.DateOnly))
		case time.Until(leaf.NotAfter) < soon:
			c.say(levelWarning, key, "%s expires on %s; renew it", pair.Cert, leaf.NotAfter.Format(time.DateOnly))
		default:
			c.say(levelOK, key, "%s, until %s", pair.Cert, leaf.NotAfter.Format(time.DateOnly))
		}
		named = named || leaf.VerifyHostname(name) == nil
	}
	if t.Enabled() && !named {
		c.say(levelWarning, key, "there is none for %s; clients that check names will refuse it", name)
	}
	if key == "smtp.tls" && !t.Enabled() {
		c.say(levelWarning, key, "there is none: mail comes to us in plaintext; name a certificate, or let ACME get one")
	}
}

func readCertificate(pair config.Pair) (*x509.Certificate, error) {
	loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate %s and its key: %w", pair.Cert, err)
	}
	return loaded.Leaf, nil
}

// ports tries to listen. A port that is taken is fine if it is a running gateway of this configuration.
func (c *checker) ports(ctx context.Context) {
	if c.running(ctx) {
		c.say(levelOK, "ports", "the gateway is running and takes mail")
		return
	}
	all, err := listenAll(ctx, c.cfg)
	if err != nil {
		c.say(levelError, "ports", "%v", err)
		return
	}
	if err := all.close(); err != nil {
		c.say(levelError, "ports", "%v", err)
		return
	}
	c.say(levelOK, "ports", "free")
}

// running asks the portal's own listener, whatever its certificate is called.
func (c *checker) running(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	scheme := "http"
	if c.cfg.Portal.TLS.Enabled() {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+c.cfg.Portal.Listen+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // nothing secret is sent
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return false
	}
	return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
}
