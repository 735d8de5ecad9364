package main

import (
	"errors"
	"strings"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
)

// router knows which addresses are ours.
type router struct {
	routes  map[string]gateway.Route // by canonical address
	domains map[string]bool
}

func newRouter(c *config.Config) *router {
	r := &router{routes: map[string]gateway.Route{}, domains: map[string]bool{}}
	postmaster := gateway.Route{
		Address: config.PostmasterAddress, ForwardTo: c.Postmaster.ForwardTo,
		NextHop: nextHop(c.Postmaster.NextHop, c.Postmaster.TLS), ExpireAfter: c.ExpireAfter.Std(),
	}
	r.routes[config.PostmasterAddress] = postmaster
	r.routes[crypto.CanonicalAddress(config.PostmasterAddress+"@"+c.Hostname)] = postmaster
	for _, route := range c.Routes {
		_, domain, _ := strings.Cut(crypto.CanonicalAddress(route.Address), "@")
		r.domains[domain] = true
		r.routes[config.PostmasterAddress+"@"+domain] = postmaster
	}
	for _, route := range c.Routes { // last, so that a route of one's own for a postmaster counts
		r.routes[crypto.CanonicalAddress(route.Address)] = gateway.Route{
			Address: route.Address, ForwardTo: route.ForwardTo,
			NextHop: nextHop(route.NextHop, route.TLS), ExpireAfter: route.ExpireAfter.Std(),
		}
	}
	return r
}

func nextHop(hop config.Hop, tls string) gateway.NextHop {
	return gateway.NextHop{Host: hop.Host, Port: hop.Port, RequireTLS: tls == config.TLSRequire}
}

// Route returns the route of an address in any spelling. What is not ours is refused: the gateway is
// never an open relay.
func (r *router) Route(address string) (gateway.Route, error) {
	canonical := crypto.CanonicalAddress(address)
	if route, ok := r.routes[canonical]; ok {
		return route, nil
	}
	if _, domain, _ := strings.Cut(canonical, "@"); r.domains[domain] {
		return gateway.Route{}, gateway.Errorf(gateway.CodeUnknownRecipient, errNoRoute, "no such mailbox here")
	}
	return gateway.Route{}, gateway.Errorf(gateway.CodeRelayDenied, errNoRoute, "relaying denied")
}

var errNoRoute = errors.New("no route has this address")

// Current returns the route as it is configured now, by the public address that a delivery remembers.
func (r *router) Current(address string) (gateway.Route, bool) {
	route, ok := r.routes[crypto.CanonicalAddress(address)]
	return route, ok
}
