package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"sealpost/gateway"
)

const (
	maxHosts     = 5  // of an attempt
	maxAddresses = 10 // of an attempt
)

// Resolver looks up DNS records; *net.Resolver does.
type Resolver interface {
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
}

var (
	errLoop  = errors.New("mail for the next address loops back to us: the best MX is our own host name")
	errNoMX  = errors.New("the domain of the next address has no mail server")
	errDNS   = errors.New("the next hop cannot be looked up")
	errNoTry = errors.New("no address of the next hop was found")
)

// hosts returns the names or addresses that take the mail for d, best first (RFC 5321 section 5.1). returning
// tells that d is a sender's domain, not one that an admin configured.
func (r *Relay) hosts(ctx context.Context, d destination, returning bool) ([]string, error) {
	if d.hop.Host != "" {
		return []string{strings.Trim(d.hop.Host, "[]")}, nil
	}
	if strings.HasPrefix(d.domain, "[") {
		if ip, ok := literal(d.domain); ok {
			return []string{ip}, nil
		}
		return nil, refusal{"5.1.3", "the address literal cannot be read"}
	}
	domain := d.domain
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	if domain == "" {
		return nil, errNoMX
	}
	records, err := r.opts.Resolver.LookupMX(ctx, domain+".")
	if len(records) == 0 && err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("%w: %w", errDNS, err)
	}
	if len(records) == 0 {
		return r.implicit(ctx, domain, returning)
	}
	return r.exchangers(records)
}

// exchangers orders MX records, and leaves out us and all that come after us.
func (r *Relay) exchangers(records []*net.MX) ([]string, error) {
	if len(records) == 1 && strings.Trim(records[0].Host, ".") == "" {
		return nil, refusal{"5.1.10", "the domain accepts no mail (null MX)"} // RFC 7505
	}
	records = slices.Clone(records)
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	var hosts []string
	for _, mx := range records {
		if strings.EqualFold(strings.TrimSuffix(mx.Host, "."), r.opts.Hostname) {
			pref := mx.Pref
			better := slices.IndexFunc(records, func(m *net.MX) bool { return m.Pref >= pref })
			hosts = hosts[:min(better, len(hosts))]
			break
		}
		if name := strings.TrimSuffix(mx.Host, "."); name != "" {
			hosts = append(hosts, name)
		}
	}
	if len(hosts) == 0 {
		return nil, errLoop
	}
	return hosts[:min(len(hosts), maxHosts)], nil
}

// implicit returns the domain itself, when it has addresses.
func (r *Relay) implicit(ctx context.Context, domain string, returning bool) ([]string, error) {
	if strings.EqualFold(domain, r.opts.Hostname) {
		return nil, errLoop
	}
	_, err := r.opts.Resolver.LookupIPAddr(ctx, domain+".")
	switch {
	case err == nil:
		return []string{domain}, nil
	case !isNotFound(err):
		return nil, fmt.Errorf("%w: %w", errDNS, err)
	case returning:
		return nil, refusal{"5.1.2", errNoMX.Error()}
	}
	return nil, errNoMX
}

// addresses returns the addresses of host, in the resolver's order.
func (r *Relay) addresses(ctx context.Context, host string) ([]string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}, nil
	}
	found, err := r.opts.Resolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDNS, err)
	}
	var list []string
	for _, a := range found {
		list = append(list, a.String())
	}
	return list, nil
}

// literal reads an address literal (RFC 5321 section 4.1.3).
func literal(domain string) (string, bool) {
	text := strings.TrimSuffix(strings.TrimPrefix(domain, "["), "]")
	if len(text) > 5 && strings.EqualFold(text[:5], "IPv6:") {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	return ip.String(), err == nil && ip.Zone() == ""
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// port returns the port of hop.
func port(hop gateway.NextHop) uint16 {
	switch {
	case hop.Port != 0:
		return hop.Port
	case hop.ImplicitTLS:
		return 465
	}
	return 25
}
