package portal

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// client returns the address that a request came from. X-Forwarded-For is read from its end, as far as
// the hops are trusted proxies: what stands before the first other address, anyone can have written.
func (p *portal) client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	addr := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !p.trusted(addr) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		addr = next.Unmap().WithZone("")
	}
	return addr
}

func (p *portal) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(p.opts.TrustedProxies, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// clientKey is what failures of a client are counted under: an IPv6 host usually has a whole /64.
func clientKey(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}
