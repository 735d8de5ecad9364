package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/srs"
)

// returnKeep is how long it is remembered that a bounce was passed on.
const returnKeep = 30 * 24 * time.Hour

// router knows which addresses are ours.
type router struct {
	routes    map[string]gateway.Route // by canonical address
	domains   map[string]bool
	delimiter string
	back      *srs.Rewriter // nil without SRS
	returnHop gateway.NextHop
}

func newRouter(c *config.Config, back *srs.Rewriter) (*router, error) {
	r := &router{
		routes: map[string]gateway.Route{}, domains: map[string]bool{}, delimiter: c.SMTP.RecipientDelimiter,
		back: back, returnHop: nextHop(c.SRS.BounceNextHop, config.TLSOpportunistic),
	}
	password, err := readPassword("postmaster.auth", c.Postmaster.Auth)
	if err != nil {
		return nil, err
	}
	postmaster := gateway.Route{
		Address: config.PostmasterAddress, ForwardTo: c.Postmaster.ForwardTo, NextHop: nextHop(c.Postmaster.NextHop, c.Postmaster.TLS),
		ExpireAfter: c.ExpireAfter.Std(), PortalURL: c.Portal.URL, DMARC: gateway.DMARCNote, NoticeLanguage: c.Notice.Language,
	}
	postmaster.NextHop.User, postmaster.NextHop.Password = c.Postmaster.Auth.User, password
	r.routes[config.PostmasterAddress] = postmaster
	for _, domain := range []string{c.Hostname, c.SRS.Domain} {
		r.routes[crypto.CanonicalAddress(config.PostmasterAddress+"@"+domain)] = postmaster
	}
	for _, route := range c.Routes {
		_, domain, _ := strings.Cut(crypto.CanonicalAddress(route.Address), "@")
		r.domains[domain] = true
		r.routes[config.PostmasterAddress+"@"+domain] = postmaster
	}
	for i, route := range c.Routes { // last, so that a route of one's own for a postmaster counts
		password, err := readPassword(fmt.Sprintf("routes[%d].auth", i), route.Auth)
		if err != nil {
			return nil, err
		}
		made := gateway.Route{
			Address: route.Address, ForwardTo: route.ForwardTo, NextHop: nextHop(route.NextHop, route.TLS),
			ExpireAfter: route.ExpireAfter.Std(), PortalURL: route.PortalURL, DMARC: gateway.DMARCPolicy(route.DMARC),
			NoticeLanguage: route.NoticeLanguage,
		}
		made.NextHop.User, made.NextHop.Password = route.Auth.User, password
		r.routes[crypto.CanonicalAddress(route.Address)] = made
	}
	return r, nil
}

func nextHop(hop config.Hop, tls string) gateway.NextHop {
	return gateway.NextHop{Host: hop.Host, Port: hop.Port, ImplicitTLS: hop.ImplicitTLS, TLS: gateway.TLSMode(tls)}
}

// readPassword reads what auth names; nothing when it names nothing.
func readPassword(key string, auth config.Auth) (gateway.Secret, error) {
	switch {
	case auth.PasswordEnv != "":
		value := os.Getenv(auth.PasswordEnv)
		if value == "" {
			return gateway.Secret{}, fmt.Errorf("%s.password_env: the environment variable %s is not set", key, auth.PasswordEnv)
		}
		return gateway.NewSecret(value), nil
	case auth.PasswordFile != "":
		text, err := os.ReadFile(auth.PasswordFile)
		if err != nil {
			return gateway.Secret{}, fmt.Errorf("%s.password_file: %w", key, err)
		}
		return gateway.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
	}
	return gateway.Secret{}, nil
}

// Route returns the route of an address in any spelling. What is not ours is refused: the gateway is
// never an open relay.
func (r *router) Route(mailFrom, address string) (gateway.Route, error) {
	canonical := crypto.CanonicalAddress(address)
	if route, ok := r.find(canonical); ok {
		return route, nil
	}
	if r.back != nil {
		if route, err := r.wayBack(mailFrom, address); !errors.Is(err, srs.ErrNotSRS) {
			return route, err
		}
	}
	if _, domain, _ := strings.Cut(canonical, "@"); r.domains[domain] {
		return gateway.Route{}, gateway.Errorf(gateway.CodeUnknownRecipient, errNoRoute, "no such mailbox here")
	}
	return gateway.Route{}, gateway.Errorf(gateway.CodeRelayDenied, errNoRoute, "relaying denied")
}

var errNoRoute = errors.New("no route has this address")

// find looks an address up as it stands, and then without what follows the delimiter.
func (r *router) find(canonical string) (gateway.Route, bool) {
	if route, ok := r.routes[canonical]; ok || r.delimiter == "" {
		return route, ok
	}
	local, domain, _ := strings.Cut(canonical, "@")
	mailbox, _, tagged := strings.Cut(local, r.delimiter)
	if !tagged || mailbox == "" {
		return gateway.Route{}, false
	}
	route, ok := r.routes[mailbox+"@"+domain]
	return route, ok
}

// wayBack returns the route of a bounce. Only bounces use such addresses: anything else would make us an open relay.
func (r *router) wayBack(mailFrom, address string) (gateway.Route, error) {
	sender, err := r.back.Reverse(address)
	if err != nil || mailFrom != "" {
		return gateway.Route{}, gateway.Errorf(gateway.CodeUnknownRecipient, errors.Join(errNoRoute, err), "no such mailbox here")
	}
	return gateway.Route{
		Address: gateway.ReturnRoute, ForwardTo: sender, NextHop: r.returnHop, ExpireAfter: returnKeep,
	}, nil
}

// Current returns the route as it is configured now, by the public address that a delivery remembers.
func (r *router) Current(address string) (gateway.Route, bool) {
	if address == gateway.ReturnRoute {
		return gateway.Route{Address: address, NextHop: r.returnHop, ExpireAfter: returnKeep}, true
	}
	route, ok := r.routes[crypto.CanonicalAddress(address)]
	return route, ok
}

// hidden are the configured addresses that no outsider may see, each with the public one that stands for it.
func (r *router) hidden() map[string]string {
	hidden := make(map[string]string, len(r.routes))
	for _, route := range r.routes {
		public := route.Address
		if before, ok := hidden[route.ForwardTo]; ok && before < public {
			public = before
		}
		hidden[route.ForwardTo] = public
	}
	return hidden
}

// hiddenBeside is hidden together with addresses that mail went to before, each with the public one of then. What has
// become public since is not hidden.
func (r *router) hiddenBeside(before map[string]string) map[string]string {
	hidden := r.hidden()
	for address, public := range before {
		_, configured := hidden[address]
		if _, ours := r.find(crypto.CanonicalAddress(address)); !ours && !configured {
			hidden[address] = public
		}
	}
	return hidden
}
