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
	// ErrNullMX tells that a domain says that it takes no mail (RFC 7505).
	ErrNullMX = errors.New("the domain accepts no mail (null MX)")
)

const (
	// notPublic are networks that no mail server of a stranger has, besides those that net/netip knows: this network,
	// shared addresses (RFC 6598), those of protocols (RFC 6890) and of benchmarks (RFC 2544), reserved ones, IPv4 inside
	// of IPv6 (RFC 4291 section 2.5.5.1), what a local translator leads into IPv4 (RFC 8215), Teredo (RFC 4380) and
	// site-local addresses (RFC 3879).
	notPublic = "0.0.0.0/8 100.64.0.0/10 192.0.0.0/24 198.18.0.0/15 240.0.0.0/4 ::/96 64:ff9b:1::/48 2001::/32 fec0::/10"
	// translated holds the IPv4 Internet in an IPv6 network (RFC 6052); so does sixToFour (RFC 3056 section 2).
	translated = "64:ff9b::/96"
	sixToFour  = "2002::/16"
)

// isPublic reports whether a stranger may have a mail server at an address.
func isPublic(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	switch whole := a.As16(); {
	case netip.MustParsePrefix(translated).Contains(a):
		a = netip.AddrFrom4([4]byte(whole[12:]))
	case netip.MustParsePrefix(sixToFour).Contains(a):
		a = netip.AddrFrom4([4]byte(whole[2:6]))
	}
	for network := range strings.FieldsSeq(notPublic) {
		if netip.MustParsePrefix(network).Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

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
		return nil, refusal{"5.1.10", ErrNullMX.Error()} // RFC 7505
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

// addresses returns the addresses of the server host of d, in the resolver's order. Where a stranger chose the server
// (returning, found by DNS), only public ones count: our network is not for them to reach through us.
func (r *Relay) addresses(ctx context.Context, d destination, host string, returning bool) ([]string, error) {
	foreign := returning && d.hop.Host == "" && !r.opts.AllowPrivateReturns
	if ip, err := netip.ParseAddr(host); err == nil {
		if foreign && !isPublic(ip) {
			return nil, unreachableSender()
		}
		return []string{host}, nil
	}
	name := host
	if d.hop.Host == "" {
		name += "." // it came from DNS: no search list is to be asked
	}
	found, err := r.opts.Resolver.LookupIPAddr(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDNS, err)
	}
	var list []string
	for _, a := range found {
		if ip, ok := netip.AddrFromSlice(a.IP); !foreign || ok && isPublic(ip) {
			list = append(list, a.String())
		}
	}
	if len(list) == 0 && len(found) > 0 {
		return nil, unreachableSender()
	}
	return list, nil
}

func unreachableSender() refusal {
	return refusal{"5.4.4", "the sender's domain has no mail server that can be reached"}
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
