package main

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"
	"golang.org/x/sys/unix"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/downgrade"
	"sealpost/gateway/relay"
)

// lookLimit bounds each question to another server.
const lookLimit = 10 * time.Second

// clock looks whether the kernel's clock is kept in step. Leases, expiry and Received fields go by it.
func (c *checker) clock() {
	var state unix.Timex
	status, err := unix.Adjtimex(&state)
	switch {
	case err != nil:
		c.say(levelWarning, "clock", "cannot be asked: %v", err)
	case status == unix.TIME_ERROR:
		c.say(levelWarning, "clock", "it is not synchronised (%s); run chrony or systemd-timesyncd", time.Now().UTC().Format(time.RFC3339))
	default:
		c.say(levelOK, "clock", "synchronised, %s", time.Now().UTC().Format(time.RFC3339))
	}
}

// relays warns where nothing that the relays in front of us found counts.
func (c *checker) relays() {
	if c.cfg.Authentication.Enabled && len(c.cfg.SMTP.TrustedRelays) > 0 && len(c.cfg.Authentication.TrustedIDs) == 0 {
		c.say(levelWarning, "trusted_ids", "empty, so behind smtp.trusted_relays SPF is not known; set authentication.trusted_ids to the name in their Authentication-Results")
	}
}

// names looks at what DNS says of our own name and of the domains that we take mail for.
func (c *checker) names(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*lookLimit)
	defer cancel()
	c.relays()
	ours := c.hostname(ctx)
	for _, domain := range c.domains() {
		c.mx(ctx, domain, "this is right if another server forwards its mail to us")
	}
	if c.cfg.SRS.Domain == "" {
		c.say(levelWarning, "srs", "not configured: a server behind us sends its bounces straight to the senders, and they may name forward_to; set srs.domain")
		return
	}
	if _, err := newSRS(c.cfg); err != nil {
		c.say(levelError, "srs", "%v", err)
		return
	}
	c.mx(ctx, c.cfg.SRS.Domain, "bounces will not come back to us")
	c.spf(ctx, ours)
}

func (c *checker) domains() []string {
	var domains []string
	for _, route := range c.cfg.Routes {
		if _, domain, _ := strings.Cut(crypto.CanonicalAddress(route.Address), "@"); !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	return domains
}

// hostname returns our addresses by DNS.
func (c *checker) hostname(ctx context.Context) []net.IPAddr {
	addresses, err := c.resolver.LookupIPAddr(ctx, c.cfg.Hostname)
	if err != nil {
		c.say(levelWarning, "hostname", "%s cannot be resolved (%s); give it an A or AAAA record, since servers refuse mail from names that do not exist", c.cfg.Hostname, dnsReason(err))
		return nil
	}
	for _, address := range addresses {
		names, err := c.resolver.LookupAddr(ctx, address.String())
		if err != nil || !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), c.cfg.Hostname) }) {
			c.say(levelWarning, "hostname", "%s is %s, whose reverse name is not %[1]s; ask who owns the address for a PTR record", c.cfg.Hostname, address.String())
			return addresses
		}
	}
	c.say(levelOK, "hostname", "%s resolves both ways", c.cfg.Hostname)
	return addresses
}

func (c *checker) mx(ctx context.Context, domain, otherwise string) {
	records, err := c.resolver.LookupMX(ctx, domain+".")
	switch {
	case err != nil:
		c.say(levelWarning, "MX", "%s has no MX record that can be read (%s)", domain, dnsReason(err))
	case slices.ContainsFunc(records, func(mx *net.MX) bool { return strings.EqualFold(strings.TrimSuffix(mx.Host, "."), c.cfg.Hostname) }):
		c.say(levelOK, "MX", "%s names %s", domain, c.cfg.Hostname)
	default:
		c.say(levelWarning, "MX", "%s does not name %s; %s", domain, c.cfg.Hostname, otherwise)
	}
}

// spf asks as a server behind us would.
func (c *checker) spf(ctx context.Context, ours []net.IPAddr) {
	for _, address := range ours {
		result, _ := spf.CheckHostWithSender(address.IP, c.cfg.Hostname, "probe@"+c.cfg.SRS.Domain, spf.WithContext(ctx), spf.WithResolver(c.resolver))
		if result != spf.Pass {
			c.say(levelWarning, "SPF", "%s gives %s for %s; add it to the domain's SPF record, such as v=spf1 a:%s -all", c.cfg.SRS.Domain, result, address.String(), c.cfg.Hostname)
			return
		}
	}
	if len(ours) > 0 {
		c.say(levelOK, "SPF", "%s allows %s", c.cfg.SRS.Domain, c.cfg.Hostname)
	}
}

func dnsReason(err error) string {
	var failed *net.DNSError
	if !errors.As(err, &failed) {
		return err.Error()
	}
	return failed.Err
}

// scanner asks the virus scanner whether it is there.
func (c *checker) scanner(ctx context.Context) {
	if c.cfg.Scan.Clamd == "" {
		c.say(levelWarning, "scan", "no virus scanner is configured; nobody can look into files once they are sealed")
		return
	}
	client, err := newScanner(c.cfg, slog.New(slog.DiscardHandler), nil)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, lookLimit)
		defer cancel()
		err = client.Ping(ctx)
	}
	if err != nil {
		c.say(levelError, "scan", "clamd at %s does not answer (%v); start it, or correct scan.clamd", c.cfg.Scan.Clamd, err)
		return
	}
	c.say(levelOK, "scan", "clamd at %s answers", c.cfg.Scan.Clamd)
}

// target is a mailbox behind us, by the key that names it.
type target struct {
	key   string
	route gateway.Route
}

// nextHops speaks with each next hop up to RCPT, as a delivery would, and sends nothing.
func (c *checker) nextHops(ctx context.Context) {
	router, err := newRouter(c.cfg, nil)
	if err != nil {
		c.say(levelError, "routes", "%v", err)
		return
	}
	roots, err := relayRoots(c.cfg)
	if err != nil {
		c.say(levelError, "relay.roots", "%v", err)
		return
	}
	addresses := []string{config.PostmasterAddress}
	for _, route := range c.cfg.Routes {
		addresses = append(addresses, route.Address)
	}
	for _, address := range addresses {
		route, _ := router.Current(address)
		c.nextHop(ctx, target{address, route}, roots)
	}
}

func (c *checker) nextHop(ctx context.Context, t target, roots *x509.CertPool) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	found, err := relay.Probe(ctx, relay.Options{
		Hostname: c.cfg.Hostname, Resolver: c.resolver, Roots: roots, DowngradeAddress: downgrade.Address,
	}, t.route)
	var refused *textproto.Error
	switch {
	case errors.Is(err, relay.ErrNullMX):
		c.say(levelError, "next hop", "%s: forward_to's domain says that it takes no mail; correct forward_to, or name a next_hop", t.key)
	case errors.As(err, &refused) && refused.Code >= 500:
		c.say(levelError, "next hop", "%s: %s refuses its mail: %d %s", t.key, found.Hop, refused.Code, printable(refused.Msg))
	case errors.As(err, &refused):
		c.say(levelWarning, "next hop", "%s: %s puts its mail off: %d %s", t.key, found.Hop, refused.Code, printable(refused.Msg))
	case err != nil:
		c.say(levelWarning, "next hop", "%s: %s cannot be reached now (%s); mail for it would wait", t.key, found.Hop, printable(err.Error()))
	case found.TLS == "":
		c.say(levelOK, "next hop", "%s: %s would take it, without TLS", t.key, found.Hop)
	default:
		c.say(levelOK, "next hop", "%s: %s would take it, with TLS", t.key, found.Hop)
	}
}
