package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"
	"golang.org/x/sys/unix"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
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

// names looks at what DNS says of our own name and of the domains that we take mail for.
func (c *checker) names(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*lookLimit)
	defer cancel()
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

// nextHops speaks with each next hop up to RCPT, and sends nothing.
func (c *checker) nextHops(ctx context.Context) {
	router, err := newRouter(c.cfg, nil)
	if err != nil {
		c.say(levelError, "routes", "%v", err)
		return
	}
	addresses := []string{config.PostmasterAddress}
	for _, route := range c.cfg.Routes {
		addresses = append(addresses, route.Address)
	}
	for _, address := range addresses {
		route, _ := router.Current(address)
		c.nextHop(ctx, target{address, route})
	}
}

func (c *checker) nextHop(ctx context.Context, t target) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	hop, err := c.server(ctx, t.route)
	if errors.Is(err, errNullMX) {
		c.say(levelError, "next hop", "%s: %v; correct forward_to, or name a next_hop", t.key, err)
		return
	}
	if err != nil {
		c.say(levelWarning, "next hop", "%s: %v; mail for it would wait", t.key, err)
		return
	}
	text, err := c.dialogue(ctx, hop, t.route)
	var refused *textproto.Error
	switch {
	case errors.As(err, &refused) && refused.Code >= 500:
		c.say(levelError, "next hop", "%s: %s refuses its mail: %d %s", t.key, hop, refused.Code, printable(refused.Msg))
	case errors.As(err, &refused):
		c.say(levelWarning, "next hop", "%s: %s puts its mail off: %d %s", t.key, hop, refused.Code, printable(refused.Msg))
	case err != nil:
		c.say(levelWarning, "next hop", "%s: %s cannot be reached now (%v); mail for it would wait", t.key, hop, err)
	default:
		c.say(levelOK, "next hop", "%s: %s would take it%s", t.key, hop, text)
	}
}

var errNullMX = errors.New("forward_to's domain says that it takes no mail")

// server returns host and port of a route's next hop.
func (c *checker) server(ctx context.Context, route gateway.Route) (string, error) {
	hop := route.NextHop
	if hop.Host != "" {
		return net.JoinHostPort(hop.Host, strconv.Itoa(int(hop.Port))), nil
	}
	_, domain, _ := strings.Cut(crypto.CanonicalAddress(route.ForwardTo), "@")
	records, err := c.resolver.LookupMX(ctx, domain+".")
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound: // the domain itself: RFC 5321 section 5.1
		return net.JoinHostPort(domain, "25"), nil
	case err != nil || len(records) == 0:
		return "", fmt.Errorf("the MX of forward_to's domain cannot be found (%s)", dnsReason(err))
	case records[0].Host == ".": // RFC 7505
		return "", errNullMX
	}
	return net.JoinHostPort(strings.TrimSuffix(records[0].Host, "."), "25"), nil
}

// dialogue goes up to RCPT, and says what the reader should know of how.
func (c *checker) dialogue(ctx context.Context, server string, route gateway.Route) (string, error) {
	conn, err := (&net.Dialer{Resolver: c.resolver}).DialContext(ctx, "tcp", server)
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	host, _, _ := net.SplitHostPort(server)
	settings := &tls.Config{ServerName: host, InsecureSkipVerify: route.NextHop.TLS != gateway.TLSVerify, MinVersion: tls.VersionTLS12} //nolint:gosec // as the relay does
	if route.NextHop.ImplicitTLS {
		conn = tls.Client(conn, settings)
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return "", errors.Join(err, conn.Close())
	}
	defer client.Close() //nolint:errcheck // QUIT has closed it, or what failed is told already
	text, err := c.upToRecipient(client, settings, route)
	if err == nil {
		_ = client.Reset()
		_ = client.Quit()
	}
	return text, err
}

func (c *checker) upToRecipient(client *smtp.Client, settings *tls.Config, route gateway.Route) (string, error) {
	if err := client.Hello(c.cfg.Hostname); err != nil {
		return "", err
	}
	text := ", without TLS"
	if route.NextHop.ImplicitTLS {
		text = ", with TLS"
	} else if offered, _ := client.Extension("STARTTLS"); offered {
		if err := client.StartTLS(settings); err != nil {
			return "", fmt.Errorf("STARTTLS: %w", err)
		}
		text = ", with TLS"
	} else if route.NextHop.TLS != gateway.TLSOpportunistic {
		return "", errors.New("it offers no TLS, which the route demands")
	}
	if user := route.NextHop.User; user != "" {
		if err := client.Auth(smtp.PlainAuth("", user, route.NextHop.Password.Reveal(), settings.ServerName)); err != nil {
			return "", fmt.Errorf("log in: %w", err)
		}
	}
	if err := client.Mail(""); err != nil {
		return "", err
	}
	return text, client.Rcpt(route.ForwardTo)
}
