// Package portal serves the agents: the pages that open a Secure Link, and the API behind them (version 1).
//
// A package opens for whoever has a session, holds the keycode K (shown by its proof) and may see one of
// the package's placements. The portal hands out the server secret S and ciphertext; it never sees K, a
// file name or a file. What it decides beyond the API's description:
//
//   - A log-in makes a cookie session, or with {"token": true} a bearer session. Each kind is accepted only
//     in its own place, and a request with an Authorization header never uses a cookie.
//   - Log-in failures are counted in sliding windows for the client address, for the account, and for both
//     together. The last is the tightest, so one client cannot shut an agent out, and all of them open
//     again by themselves; see limits.
//   - Every log-in that reaches the password check, every open and every GET of an object by a session
//     (not only the one that starts at offset 0) is an audit event, whatever its outcome; if the event cannot be
//     written, the request fails. Requests that anyone can send without end (no session, over the limit) are
//     logged and counted, not audited.
//   - A session has a fixed life and is never prolonged: that would let a request in flight bring back a
//     session that was ended meanwhile. It also ends when its agent is removed or gets another password.
//   - With Options.Direct the pages and `open` ask for a URL of each object instead, as long as their grant lasts.
//   - Objects are served whole or by one range (RFC 9110 section 14); several ranges in one request are
//     answered with the whole object.
package portal

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway"
)

// Options are the portal's settings. URL is needed; a zero in any other field means its default.
type Options struct {
	// URL is what Secure Links begin with. It is https, or http on a loopback host: then cookies go
	// without Secure and the __Host- prefix.
	URL *url.URL
	// OtherURLs are what the Secure Links of other routes begin with, when several brands share this portal.
	// Each is like URL and has its scheme. A log-in at one of them counts at that one only.
	OtherURLs []*url.URL
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// SessionLifetime is how long a log-in lasts: 12 h.
	SessionLifetime time.Duration
	// GrantLifetime is how long objects may be fetched after an open: 15 min.
	GrantLifetime time.Duration
	// Limits of failed log-ins.
	Limits LoginLimits
	// Direct lets objects come from where they are stored; nil: they come through the portal.
	Direct Direct
	// Ready answers /readyz: nil when the node takes mail. Without it, the node is always ready.
	Ready func(context.Context) error
	// Logger gets one line per request; nil discards them.
	Logger *slog.Logger
	// Metrics is where counters are registered; nil registers none.
	Metrics prometheus.Registerer
}

// Store is what the portal needs of the database. Errors carry a gateway.Code; absence is CodeNotFound.
type Store interface {
	AgentByAddress(ctx context.Context, address string) (gateway.Agent, error)
	Agent(ctx context.Context, id string) (gateway.Agent, error)
	// Package returns the package with its head's name and its placements.
	Package(ctx context.Context, id gateway.PackageID) (gateway.Package, error)
	// ObjectOf returns the object called name if it belongs to the package.
	ObjectOf(ctx context.Context, id gateway.PackageID, name string) (gateway.Object, error)
	AddGrant(ctx context.Context, tokenHash, sessionHash [32]byte, id gateway.PackageID, expires time.Time) error
	Grant(ctx context.Context, tokenHash [32]byte) (gateway.Grant, error)
	// CountLoginFailures counts those of key after since. Keys hold addresses; the store hashes them.
	CountLoginFailures(ctx context.Context, key string, since time.Time) (int, error)
	AddLoginFailure(ctx context.Context, key string) error
	ClearLoginFailures(ctx context.Context, key string) error
	// BindSession ties a committed session to its agent, so that removing the agent or setting another password ends it. token
	// is the session token itself; the store knows it as scs hands it over, base64url(SHA-256(token)).
	BindSession(ctx context.Context, token, agentID string) error
	Audit(ctx context.Context, event gateway.AuditEvent) error
	// Now is the database's clock.
	Now(ctx context.Context) (time.Time, error)
}

// Sessions keeps the sessions for scs, which hands it hashed tokens only.
type Sessions = scs.CtxStore

// Blobs reads length bytes of an object from offset. A missing object is an fs.ErrNotExist.
type Blobs interface {
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
}

// Passwords checks passwords against argon2id hashes.
type Passwords interface {
	Verify(ctx context.Context, hash, password string) (bool, error)
	// VerifyDummy takes as long as Verify, for an agent that does not exist.
	VerifyDummy(ctx context.Context, password string) error
}

// portal is the handler's state; nothing in it changes after New but the session manager's store.
type portal struct {
	opts      Options
	store     Store
	blobs     Blobs
	passwords Passwords
	sessions  *scs.SessionManager
	log       *slog.Logger
	metrics   *metrics
	pages     *pages
	// checks bounds the log-ins between the look at the limits and the count of the failure, so that
	// parallel guesses cannot all pass the limits at once.
	checks chan struct{}
}

// New returns the portal's handler: pages, API, /healthz and /readyz. The listener and its time-outs are
// the caller's; see NewServer.
func New(opts Options, store Store, sessions Sessions, blobs Blobs, passwords Passwords) (http.Handler, error) {
	if err := checkURLs(opts); err != nil {
		return nil, err
	}
	opts = withDefaults(opts)
	built, err := loadPages()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, err
	}
	p := &portal{
		opts: opts, store: store, blobs: blobs, passwords: passwords,
		sessions: newSessionManager(opts, sessions),
		log:      opts.Logger, metrics: m, pages: built,
		checks: make(chan struct{}, parallelChecks),
	}
	guarded, err := p.sameOrigin(p.routes())
	if err != nil {
		return nil, err
	}
	return p.observe(p.secure(guarded)), nil
}

func (p *portal) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.pages.serveHome)
	mux.HandleFunc("GET /p/{id}", p.pages.servePackage)
	mux.HandleFunc("GET /assets/{name}", p.pages.serveAsset)
	mux.HandleFunc("/", p.pages.serveNotFound)

	mux.Handle("/api/", p.api(func(http.ResponseWriter, *http.Request) error { return errNotFound }))
	mux.Handle("GET /api/v1/session", p.api(p.session))
	mux.Handle("POST /api/v1/login", p.api(p.login))
	mux.Handle("POST /api/v1/logout", p.api(p.logout))
	mux.Handle("POST /api/v1/packages/{id}/open", p.api(p.open))
	mux.Handle("GET /api/v1/packages/{id}/objects/{name...}", p.api(p.object))

	if p.opts.Direct != nil {
		mux.Handle("GET /api/v1/packages/{id}/urls/{name...}", p.api(p.direct))
	}

	mux.HandleFunc("GET /healthz", p.healthz)
	mux.HandleFunc("GET /readyz", p.readyz)
	return mux
}

func withDefaults(o Options) Options {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.SessionLifetime, 12 * time.Hour},
		{&o.GrantLifetime, 15 * time.Minute},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	o.Limits = o.Limits.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	return o
}

// checkURLs wants one scheme throughout: the cookie's name and its Secure attribute hang on it.
func checkURLs(opts Options) error {
	if err := checkURL(opts.URL); err != nil {
		return err
	}
	for _, other := range opts.OtherURLs {
		if err := checkURL(other); err != nil {
			return err
		}
		if other.Scheme != opts.URL.Scheme {
			return errors.New("the portal's URLs must all be https, or all be http on loopback hosts")
		}
	}
	return nil
}

func checkURL(u *url.URL) error {
	switch {
	case u == nil || u.Host == "":
		return errors.New("the portal's URL is missing or has no host")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "", u.User != nil:
		return errors.New("the portal's URL must be a scheme and a host only")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && crypto.IsLoopback(u.Hostname()):
		return nil
	}
	return errors.New("the portal's URL must begin with https:// unless its host is loopback")
}

func (p *portal) https() bool { return p.opts.URL.Scheme == "https" }
