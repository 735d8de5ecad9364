package portal

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// contentSecurityPolicy allows our own script, style and API, what objects come from, and nothing else: no inline
// code, no eval, no WebAssembly, no frames, no string that becomes markup.
func (p *portal) contentSecurityPolicy() string {
	connect := "connect-src 'self'"
	if p.opts.Direct != nil {
		connect += " " + p.opts.Direct.Origin()
	}
	return strings.Join([]string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", connect, "img-src 'self'",
		"form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'",
		"require-trusted-types-for 'script'", "trusted-types 'none'",
	}, "; ")
}

// secure sets the headers that every response carries.
func (p *portal) secure(next http.Handler) http.Handler {
	policy := p.contentSecurityPolicy()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if p.https() {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses requests that another site made a browser send. A request with an Authorization
// header is let through, since a browser adds none by itself and it never uses the cookie.
func (p *portal) sameOrigin(next http.Handler) (http.Handler, error) {
	protection := http.NewCrossOriginProtection()
	// A proxy in front may rewrite Host, so the configured origins count as our own.
	for _, own := range append([]*url.URL{p.opts.URL}, p.opts.OtherURLs...) {
		if err := protection.AddTrustedOrigin(own.Scheme + "://" + own.Host); err != nil {
			return nil, fmt.Errorf("trust the portal's own origin: %w", err)
		}
	}
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, errCrossOrigin)
	}))
	guarded := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			next.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	}), nil
}
