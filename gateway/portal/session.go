package portal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"

	"sealpost/gateway"
)

var (
	errNoSession   = gateway.Errorf(gateway.CodeUnauthenticated, nil, "Log in first.")
	errCrossOrigin = gateway.Errorf(gateway.CodeForbidden, nil, "This request came from another site.")
)

// carrier says how a session's token travels. A token is accepted only in the carrier it was made for.
type carrier string

const (
	byCookie carrier = "cookie"
	byBearer carrier = "bearer"
)

// What a session holds.
const (
	keyAgent    = "agent"
	keyCarrier  = "carrier"
	keyPassword = "password" // fingerprint of the password hash that it was begun with
)

// fingerprint changes when the agent's password does, so that no session outlives it, not even one that
// was being begun at that moment.
func fingerprint(agent gateway.Agent) string {
	sum := sha256.Sum256([]byte(agent.PasswordHash.Reveal()))
	return hex.EncodeToString(sum[:])
}

// identity is who a request comes from.
type identity struct {
	agent gateway.Agent
	// hash is the SHA-256 of the session token; grants are bound to it.
	hash [sha256.Size]byte
}

func (id identity) principal() gateway.Principal {
	return gateway.Principal{Kind: gateway.PrincipalAgent, ID: id.agent.ID}
}

// newSessionManager does without scs.New, which starts a goroutine for a store of its own that nobody
// would end. The cookie does not persist: the browser forgets it when it closes.
func newSessionManager(opts Options, store Sessions) *scs.SessionManager {
	m := &scs.SessionManager{
		Store: store, HashTokenInStore: true, Codec: scs.GobCodec{}, Lifetime: opts.SessionLifetime,
		Cookie: scs.SessionCookie{Name: "sealpost_session", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode},
	}
	if opts.URL.Scheme == "https" {
		m.Cookie.Name = "__Host-" + m.Cookie.Name
		m.Cookie.Secure = true
	}
	return m
}

// token returns the request's session token. With an Authorization header the cookie does not count.
func (p *portal) token(r *http.Request) (string, carrier) {
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", byBearer
		}
		return strings.TrimSpace(token), byBearer
	}
	cookie, err := r.Cookie(p.sessions.Cookie.Name)
	if err != nil {
		return "", byCookie
	}
	return cookie.Value, byCookie
}

// authenticate finds the session of a request. The returned context carries the session for scs.
// errNoSession when there is none, or its agent or the agent's password is gone.
func (p *portal) authenticate(r *http.Request) (context.Context, identity, error) {
	token, by := p.token(r)
	if token == "" {
		return nil, identity{}, errNoSession
	}
	ctx, err := p.sessions.Load(r.Context(), token)
	if err != nil {
		return nil, identity{}, gateway.Errorf(gateway.CodeUnavailable, err, "The session could not be looked up.")
	}
	agentID := p.sessions.GetString(ctx, keyAgent)
	if agentID == "" || p.sessions.GetString(ctx, keyCarrier) != string(by) {
		return nil, identity{}, errNoSession
	}
	agent, err := p.store.Agent(ctx, agentID)
	if gateway.ErrorCode(err) == gateway.CodeNotFound {
		return nil, identity{}, errNoSession
	}
	if err != nil {
		return nil, identity{}, err
	}
	if p.sessions.GetString(ctx, keyPassword) != fingerprint(agent) {
		return nil, identity{}, errNoSession
	}
	return ctx, identity{agent: agent, hash: sha256.Sum256([]byte(token))}, nil
}

// authorized is authenticate for what belongs to a package: without a session there is nothing to see.
func (p *portal) authorized(r *http.Request) (context.Context, identity, error) {
	ctx, who, err := p.authenticate(r)
	if gateway.ErrorCode(err) == gateway.CodeUnauthenticated {
		err = errNotFound
	}
	return ctx, who, err
}

// session tells a client whether it is logged in: {"authenticated", "agent"}.
func (p *portal) session(w http.ResponseWriter, r *http.Request) error {
	type reply struct {
		Authenticated bool   `json:"authenticated"`
		Agent         string `json:"agent,omitempty"`
	}
	_, who, err := p.authenticate(r)
	switch {
	case gateway.ErrorCode(err) == gateway.CodeUnauthenticated:
		writeJSON(w, http.StatusOK, reply{})
		return nil
	case err != nil:
		return err
	}
	writeJSON(w, http.StatusOK, reply{Authenticated: true, Agent: who.agent.Address})
	return nil
}

// logout ends the session that the request carries, and with it its grants. Without one it is done already.
func (p *portal) logout(w http.ResponseWriter, r *http.Request) error {
	ctx, who, err := p.authenticate(r)
	switch {
	case gateway.ErrorCode(err) == gateway.CodeUnauthenticated:
		p.dropCookie(w, r)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case err != nil:
		return err
	}
	if err := p.sessions.Destroy(ctx); err != nil {
		return gateway.Errorf(gateway.CodeUnavailable, err, "The session could not be ended.")
	}
	event := gateway.AuditEvent{Action: gateway.AuditLogout, Principal: who.principal()}
	if err := p.audit(r, event, nil); err != nil {
		return err
	}
	p.dropCookie(w, r)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// dropCookie tells a browser that sent a session cookie to forget it.
func (p *portal) dropCookie(w http.ResponseWriter, r *http.Request) {
	if _, err := r.Cookie(p.sessions.Cookie.Name); err == nil {
		p.sessions.WriteSessionCookie(r.Context(), w, "", time.Time{})
	}
}

// audit writes an event whose outcome is err's code, even when the client has gone away meanwhile.
// Its own failure is the caller's: what cannot be recorded does not happen.
func (p *portal) audit(r *http.Request, event gateway.AuditEvent, err error) error {
	event.Client = gateway.NewSecret(p.client(r).String())
	event.Outcome = outcome(err)
	if err := p.store.Audit(context.WithoutCancel(r.Context()), event); err != nil {
		return gateway.Errorf(gateway.CodeUnavailable, err, "The audit log could not be written, so nothing was done.")
	}
	return nil
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(gateway.ErrorCode(err))
}
