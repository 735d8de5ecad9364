package metatest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

func agents(t *testing.T, w *world) {
	ctx := t.Context()
	ben, err := w.AddAgent(ctx, "Ben@example.com", gateway.NewSecret("$argon2id$1"), admin())
	must(t, err)
	w.clock.Add(time.Second)
	ann, err := w.AddAgent(ctx, "ann@example.com", gateway.NewSecret("$argon2id$2"), admin())
	must(t, err)
	if len(ben.ID) != 32 || ben.ID == ann.ID {
		t.Errorf("IDs %q and %q", ben.ID, ann.ID)
	}
	_, err = w.AddAgent(ctx, " ben@EXAMPLE.com", gateway.NewSecret("$argon2id$3"), admin())
	wantCode(t, "the same address", err, gateway.CodeConflict)
	for _, address := range []string{"Ben@example.com", "ben@example.com"} {
		if got, err := w.AgentByAddress(ctx, address); err != nil || got != ben {
			t.Errorf("agent %+v, %v; want %+v", got, err, ben)
		}
	}
	if got, err := w.Agent(ctx, ann.ID); err != nil || got != ann || got.PasswordHash.Reveal() != "$argon2id$2" {
		t.Errorf("agent %+v, %v; want %+v", got, err, ann)
	}
	all, err := w.ListAgents(ctx)
	if err != nil || len(all) != 2 || all[0] != ben || all[1] != ann {
		t.Errorf("agents %+v, %v", all, err)
	}
	must(t, w.SetAgentPassword(ctx, ben.ID, gateway.NewSecret("$argon2id$4"), admin()))
	if got, err := w.Agent(ctx, ben.ID); err != nil || got.PasswordHash.Reveal() != "$argon2id$4" {
		t.Errorf("agent %+v, %v", got, err)
	}
	must(t, w.RemoveAgent(ctx, ben.ID, admin()))
	_, err = w.Agent(ctx, ben.ID)
	wantCode(t, "Agent", err, gateway.CodeNotFound)
	_, err = w.AgentByAddress(ctx, "ben@example.com")
	wantCode(t, "AgentByAddress", err, gateway.CodeNotFound)
	wantCode(t, "RemoveAgent", w.RemoveAgent(ctx, ben.ID, admin()), gateway.CodeNotFound)
	wantCode(t, "SetAgentPassword", w.SetAgentPassword(ctx, ben.ID, gateway.NewSecret("x"), admin()), gateway.CodeNotFound)
	events, err := w.ListAudit(ctx, nil, 10)
	actions := map[gateway.AuditAction]string{}
	for _, e := range events {
		actions[e.Action] = e.Agent
	}
	if err != nil || len(events) != 4 || actions[gateway.AuditAgentAdded] == "" ||
		actions[gateway.AuditPassword] != ben.ID || actions[gateway.AuditAgentRemoved] != ben.ID {
		t.Errorf("audit %+v, %v", events, err)
	}
}

func sessions(t *testing.T, w *world) {
	s, ctx := w.Sessions(), t.Context()
	const hashed = "lR0sr3zqbdRRlv5m3cMrH1ZKeD8ZqDKQ3TIBbiA4LNE" // 32 bytes in base64url
	find := func(want string) {
		t.Helper()
		data, found, err := s.FindCtx(ctx, hashed)
		if err != nil || found != (want != "") || string(data) != want {
			t.Errorf("found %q, %v, %v; want %q", data, found, err, want)
		}
	}
	find("")
	must(t, s.CommitCtx(ctx, hashed, []byte("one"), w.clock.Now().Add(time.Hour)))
	find("one")
	must(t, s.CommitCtx(ctx, hashed, []byte("two"), w.clock.Now().Add(2*time.Hour)))
	w.clock.Add(time.Hour)
	find("two")
	if n, err := w.DeleteExpiredSessions(ctx); err != nil || n != 0 {
		t.Errorf("%d expired, %v", n, err)
	}
	w.clock.Add(time.Hour)
	find("")
	if n, err := w.DeleteExpiredSessions(ctx); err != nil || n != 1 {
		t.Errorf("%d expired, %v; want 1", n, err)
	}
	must(t, s.Commit(hashed, []byte("three"), w.clock.Now().Add(time.Hour)))
	must(t, s.Delete(hashed))
	must(t, s.Delete(hashed))
	find("")
	if _, found, err := s.Find("no token"); found || err != nil {
		t.Errorf("a malformed token: %v, %v", found, err)
	}
	if err := s.Commit("no token", nil, w.clock.Now().Add(time.Hour)); err == nil {
		t.Error("a token that is not hashed was stored")
	}
}

func agentChangesEndSessions(t *testing.T, w *world) {
	ctx := t.Context()
	ann, err := w.AddAgent(ctx, "ann@example.com", gateway.NewSecret("hash"), admin())
	must(t, err)
	manager := newManager(w)
	w.endsSession(t, manager, ann.ID, "SetAgentPassword", func() error {
		return w.SetAgentPassword(ctx, ann.ID, gateway.NewSecret("other"), admin())
	})
	w.endsSession(t, manager, ann.ID, "RemoveAgent", func() error { return w.RemoveAgent(ctx, ann.ID, admin()) })
	wantCode(t, "unknown session", w.BindSession(ctx, "token", ann.ID), gateway.CodeNotFound)
	token := newSession(t, manager)
	wantCode(t, "unknown agent", w.BindSession(ctx, token, ann.ID), gateway.CodeNotFound)
}

func newManager(w *world) *scs.SessionManager {
	manager := scs.New()
	manager.Store, manager.HashTokenInStore = w.Sessions(), true
	manager.Lifetime = 10 * 365 * 24 * time.Hour // by this host's clock, which is not the test's
	return manager
}

// newSession commits a session of a portal, and returns its token.
func newSession(t *testing.T, manager *scs.SessionManager) string {
	t.Helper()
	ctx, err := manager.Load(t.Context(), "")
	must(t, err)
	manager.Put(ctx, "agent", "session-marker")
	token, _, err := manager.Commit(ctx)
	must(t, err)
	return token
}

// endsSession checks that end ends a session and its grants for good, and no other's.
func (w *world) endsSession(t *testing.T, manager *scs.SessionManager, agent, name string, end func() error) {
	t.Helper()
	ctx := t.Context()
	token, other := newSession(t, manager), newSession(t, manager)
	must(t, w.BindSession(ctx, token, agent))
	inFlight, err := manager.Load(ctx, token)
	must(t, err)
	expires := w.clock.Now().Add(time.Hour)
	grant, otherGrant := [32]byte{name[0], 1}, [32]byte{name[0], 2}
	must(t, w.AddGrant(ctx, grant, meta.SessionHash(token), gateway.NewPackageID(), expires))
	must(t, w.AddGrant(ctx, otherGrant, meta.SessionHash(other), gateway.NewPackageID(), expires))

	must(t, end())
	manager.Put(inFlight, "late", true)
	_, _, err = manager.Commit(inFlight) // of a request that was under way
	must(t, err)
	for _, s := range []struct {
		token string
		want  string
	}{{token, ""}, {other, "session-marker"}} {
		loaded, err := manager.Load(ctx, s.token)
		must(t, err)
		if got := manager.GetString(loaded, "agent"); got != s.want {
			t.Errorf("after %s a session holds %q, want %q", name, got, s.want)
		}
	}
	_, err = w.Grant(ctx, grant)
	wantCode(t, "the grant after "+name, err, gateway.CodeNotFound)
	_, err = w.Grant(ctx, otherGrant)
	wantCode(t, "another's grant after "+name, err, "")
}

// The session store behind the real manager and a real request.
func sessionManager(t *testing.T, w *world) {
	manager := newManager(w)
	handler := manager.LoadAndSave(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			manager.Put(r.Context(), "agent", "ann")
		}
		_, _ = rw.Write([]byte(manager.GetString(r.Context(), "agent")))
	}))
	first := httptest.NewRecorder()
	handler.ServeHTTP(first, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	cookies := first.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies %v", cookies)
	}
	second := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	request.AddCookie(cookies[0])
	handler.ServeHTTP(second, request)
	if second.Body.String() != "ann" {
		t.Errorf("the session holds %q", second.Body.String())
	}
	if _, found, err := w.Sessions().FindCtx(t.Context(), cookies[0].Value); found || err != nil {
		t.Errorf("the token itself finds the session: %v, %v", found, err)
	}
}

func grants(t *testing.T, w *world) {
	ctx, pkg := t.Context(), gateway.NewPackageID()
	token := newSession(t, newManager(w))
	want := gateway.Grant{
		TokenHash: [32]byte{1}, SessionHash: meta.SessionHash(token), Package: pkg, Expires: w.clock.Now().Add(time.Hour),
	}
	must(t, w.AddGrant(ctx, want.TokenHash, want.SessionHash, pkg, want.Expires))
	if got, err := w.Grant(ctx, want.TokenHash); err != nil || got != want {
		t.Errorf("grant %+v, %v; want %+v", got, err, want)
	}
	_, err := w.Grant(ctx, [32]byte{2})
	wantCode(t, "unknown grant", err, gateway.CodeNotFound)
	w.clock.Add(time.Hour)
	_, err = w.Grant(ctx, want.TokenHash)
	wantCode(t, "expired grant", err, gateway.CodeNotFound)
	must(t, w.AddGrant(ctx, want.TokenHash, want.SessionHash, pkg, w.clock.Now().Add(time.Hour))) // the old row is gone
	manager := newManager(w)
	loaded, err := manager.Load(ctx, token)
	must(t, err)
	must(t, manager.Destroy(loaded))
	_, err = w.Grant(ctx, want.TokenHash)
	wantCode(t, "the grant of a destroyed session", err, gateway.CodeNotFound)
}

func loginFailures(t *testing.T, w *world) {
	ctx, start := t.Context(), w.clock.Now()
	count := func(key string, since time.Time, want int) {
		t.Helper()
		if n, err := w.CountLoginFailures(ctx, key, since); err != nil || n != want {
			t.Errorf("%d failures, %v; want %d", n, err, want)
		}
	}
	count("ann", start, 0)
	for range 3 {
		must(t, w.AddLoginFailure(ctx, "ann"))
		w.clock.Add(time.Minute)
	}
	must(t, w.AddLoginFailure(ctx, "192.0.2.1"))
	count("ann", start, 3)
	count("ann", start.Add(time.Minute), 2)
	count("192.0.2.1", start, 1)
	must(t, w.ClearLoginFailures(ctx, "ann"))
	count("ann", start, 0)
	count("192.0.2.1", start, 1)
	w.clock.Add(25 * time.Hour)
	must(t, w.AddLoginFailure(ctx, "ann"))
	count("192.0.2.1", start, 0) // forgotten after a day
}
