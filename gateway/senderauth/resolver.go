package senderauth

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	breakAfter = 5 // failures in a row
	breakFor   = 5 * time.Second
)

// Resolver asks DNS. *net.Resolver is one. A name that does not exist is a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// guard is a Resolver that bounds each look-up and stops asking a resolver that is dead. Every error it
// returns is a *net.DNSError, either IsNotFound or IsTemporary, which is what the libraries tell apart.
//
// A sender chooses which names are asked for, and could name dead ones until the guard closes on everybody
// else. So before it does, it asks for our own name: if there is any answer to that, the resolver lives.
type guard struct {
	resolver Resolver
	probe    string // our own name; empty: none
	limit    time.Duration
	now      func() time.Time

	mu       sync.Mutex
	failures int
	until    time.Time // no look-up before; zero: free
}

func newGuard(resolver Resolver, probe string) *guard {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	return &guard{resolver: resolver, probe: probe, limit: perLookup, now: time.Now}
}

func (g *guard) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return ask(ctx, g, absolute(name), g.resolver.LookupTXT)
}

func (g *guard) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(ctx, g, absolute(name), g.resolver.LookupMX)
}

func (g *guard) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return ask(ctx, g, absolute(host), g.resolver.LookupIPAddr)
}

func (g *guard) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return ask(ctx, g, addr, g.resolver.LookupAddr)
}

func ask[T any](ctx context.Context, g *guard, name string, lookup func(context.Context, string) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil || !g.enter() {
		return none, temporary()
	}
	answer, err := once(ctx, g, name, lookup)
	switch {
	case err == nil:
		g.alive()
		return answer, nil
	case isNotFound(err):
		g.alive()
		return none, &net.DNSError{Err: "no such host", IsNotFound: true}
	case ctx.Err() != nil: // the mail's time is over, which tells nothing of the resolver
		return none, temporary()
	}
	g.failed(ctx)
	return none, temporary()
}

func once[T any](ctx context.Context, g *guard, name string, lookup func(context.Context, string) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, g.limit)
	defer cancel()
	return lookup(ctx, name)
}

// enter reports whether a look-up may be made. After the pause one is let through, the others wait for it.
func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.IsZero() {
		return true
	}
	now := g.now()
	if now.Before(g.until) {
		return false
	}
	g.until = now.Add(breakFor)
	return true
}

func (g *guard) alive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failures, g.until = 0, time.Time{}
}

func (g *guard) failed(ctx context.Context) {
	g.mu.Lock()
	g.failures++
	dead := g.failures >= breakAfter
	g.mu.Unlock()
	if !dead {
		return
	}
	if g.probe != "" {
		_, err := once(ctx, g, absolute(g.probe), g.resolver.LookupTXT)
		if err == nil || isNotFound(err) {
			g.alive()
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = g.now().Add(breakFor)
}

// absolute keeps the host's search domains out of it.
func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// temporary carries no name: an error may be logged by whoever gets it.
func temporary() error { return &net.DNSError{Err: "temporary failure", IsTemporary: true} }
