package portal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

// Who may do what, route by route.
func TestRoutesByRequester(t *testing.T) {
	h := newHouse(t)
	cookie, bearer := h.cookie(), h.bearer()
	cookieGrant, bearerGrant := h.grant(cookie), h.grant(bearer)
	h.addAgent("a2", "other@example.com", "other")
	evil := header{"Origin", "https://evil.example"}
	cross := header{"Sec-Fetch-Site", "cross-site"}
	same := header{"Sec-Fetch-Site", "same-origin"}
	wrong := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	swapped := header{"Cookie", h.cookieName() + "=" + strings.TrimPrefix(bearer.value, "Bearer ")}
	asBearer := header{"Authorization", "Bearer " + strings.SplitN(cookie.value, "=", 2)[1]}
	basic := header{"Authorization", "Basic YTpi"}
	unknown := "/api/v1/packages/" + gateway.NewPackageID().String()
	good := proofBody(h.proof)
	second := gateway.NewPackageID()
	h.addPackage(second, []byte("another proof"), "20260102/second.h", "20260102/second.s")
	secondPath := "/api/v1/packages/" + second.String()

	tests := []struct {
		name         string
		method, path string
		body         string
		headers      []header
		want         int
	}{
		{"home", "GET", "/", "", nil, 200},
		{"page", "GET", "/p/" + h.pkg.String(), "", nil, 200},
		{"page of an unknown package", "GET", "/p/" + gateway.NewPackageID().String(), "", nil, 200},
		{"page of no ID", "GET", "/p/" + strings.ToUpper(h.pkg.String()), "", nil, 404},
		{"page by POST", "POST", "/p/" + h.pkg.String(), "", nil, 404},
		{"no such page", "GET", "/nothing", "", nil, 404},
		{"no such asset", "GET", "/assets/portal.js", "", nil, 404},
		{"list of built files", "GET", "/assets/meta.json", "", nil, 404},
		{"health", "GET", "/healthz", "", nil, 200},
		{"readiness", "GET", "/readyz", "", nil, 200},

		{"session, anonymous", "GET", "/api/v1/session", "", nil, 200},
		{"log-in by GET", "GET", "/api/v1/login", "", nil, 404},
		{"log-in, wrong password", "POST", "/api/v1/login", loginBody(agentAddress, "x", false), nil, 401},
		{"log-in, not JSON", "POST", "/api/v1/login", "agent=a&password=b", []header{{"Content-Type", "application/x-www-form-urlencoded"}}, 400},
		{"log-in, broken JSON", "POST", "/api/v1/login", "{", nil, 400},
		{"log-in, too large", "POST", "/api/v1/login", loginBody("a", strings.Repeat("x", maxBody), false), nil, 413},
		{"log-in from another origin", "POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false), []header{evil}, 403},
		{"log-in from the page", "POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false), []header{same}, 200},

		{"open, anonymous", "POST", h.openPath(), good, nil, 404},
		{"open, cookie", "POST", h.openPath(), good, []header{cookie}, 200},
		{"open, bearer", "POST", h.openPath(), good, []header{bearer}, 200},
		{"open, cookie and another site", "POST", h.openPath(), good, []header{cookie, cross}, 403},
		{"open, cookie and another origin", "POST", h.openPath(), good, []header{cookie, evil}, 403},
		{"open, bearer and another origin", "POST", h.openPath(), good, []header{bearer, evil}, 200},
		{"open, another origin with any Authorization does not use the cookie", "POST", h.openPath(), good, []header{cookie, evil, basic}, 404},
		{"open, a bearer token as a cookie", "POST", h.openPath(), good, []header{swapped}, 404},
		{"open, a cookie's token as bearer", "POST", h.openPath(), good, []header{asBearer}, 404},
		{"open, wrong proof", "POST", h.openPath(), proofBody(wrong), []header{cookie}, 404},
		{"open, no proof", "POST", h.openPath(), "{}", []header{cookie}, 404},
		{"open, unknown package", "POST", unknown + "/open", good, []header{cookie}, 404},
		{"open, no ID", "POST", "/api/v1/packages/x/open", good, []header{cookie}, 404},
		{"open by GET", "GET", h.openPath(), "", []header{cookie}, 404},
		{"open, broken JSON", "POST", h.openPath(), "{", []header{cookie}, 400},
		{"open, broken JSON, anonymous", "POST", h.openPath(), "{", nil, 404},

		{"object, anonymous", "GET", h.objectPath(), "", nil, 404},
		{"object, anonymous with a grant", "GET", h.objectPath(), "", []header{cookieGrant}, 404},
		{"object, no grant", "GET", h.objectPath(), "", []header{cookie}, 404},
		{"object, cookie", "GET", h.objectPath(), "", []header{cookie, cookieGrant}, 200},
		{"object, bearer", "GET", h.objectPath(), "", []header{bearer, bearerGrant}, 200},
		{"object by HEAD", "HEAD", h.objectPath(), "", []header{cookie, cookieGrant}, 200},
		{"object, another session's grant", "GET", h.objectPath(), "", []header{cookie, bearerGrant}, 404},
		{"object, made-up grant", "GET", h.objectPath(), "", []header{cookie, {grantHeader, "x"}}, 404},
		{"object of another package", "GET", unknown + "/objects/" + h.segment, "", []header{cookie, cookieGrant}, 404},
		{"object of another package by the first one's grant", "GET", secondPath + "/objects/20260102/second.s", "", []header{cookie, cookieGrant}, 404},
		{"object of another package within this one", "GET", strings.Replace(h.objectPath(), h.segment, "20260102/second.s", 1), "", []header{cookie, cookieGrant}, 404},
		{"open, another package's proof", "POST", secondPath + "/open", good, []header{cookie}, 404},
		{"unknown object", "GET", h.objectPath() + "0", "", []header{cookie, cookieGrant}, 404},
		{"the head as an object", "GET", strings.Replace(h.objectPath(), h.segment, h.head, 1), "", []header{cookie, cookieGrant}, 200},
		{"object by POST", "POST", h.objectPath(), "", []header{cookie, cookieGrant}, 404},

		{"log-out, another site", "POST", "/api/v1/logout", "", []header{cookie, cross}, 403},
		{"log-out, anonymous", "POST", "/api/v1/logout", "", nil, 204},
		{"log-out, bearer", "POST", "/api/v1/logout", "", []header{bearer}, 204},
		{"open after log-out, bearer", "POST", h.openPath(), good, []header{bearer}, 404},
		{"object after log-out, bearer", "GET", h.objectPath(), "", []header{bearer, bearerGrant}, 404},
		{"the other session lives", "POST", h.openPath(), good, []header{cookie}, 200},
		{"log-out, cookie", "POST", "/api/v1/logout", "", []header{cookie, same}, 204},
		{"open after log-out, cookie", "POST", h.openPath(), good, []header{cookie}, 404},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := h.do(test.method, test.path, test.body, test.headers...)
			if r.status != test.want {
				t.Errorf("%s %s: %d, want %d: %.200s", test.method, test.path, r.status, test.want, r.body)
			}
			checkHeaders(t, r)
		})
	}
}

func (h *house) cookieName() string { return strings.SplitN(h.cookie().value, "=", 2)[0] }

func checkHeaders(t *testing.T, r answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
			"form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := r.header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("another origin may read this: %q", got)
	}
	for _, forbidden := range []string{"unsafe", "*", "data:", "blob:"} {
		if strings.Contains(r.header.Get("Content-Security-Policy"), forbidden) {
			t.Errorf("the policy allows %s", forbidden)
		}
	}
}

// Without session or proof, all states of a package look alike, byte for byte and header for header.
func TestOneBodyForAllThatMayNotBeSeen(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	wrong := proofBody(base64.RawURLEncoding.EncodeToString(make([]byte, 32)))
	states := map[string]func(*gateway.Package){
		"available": func(*gateway.Package) {},
		"expired":   func(p *gateway.Package) { p.Expires = h.store.now.Add(-time.Hour) },
		"revoked":   func(p *gateway.Package) { p.State = gateway.PackageRevoked },
		"erased":    func(p *gateway.Package) { p.State, p.ProofHash = gateway.PackageErased, [32]byte{} },
		"arriving":  func(p *gateway.Package) { p.State = gateway.PackageArriving },
		"foreign":   func(p *gateway.Package) { p.Placements = nil },
	}
	var first string
	check := func(name, method, path, body string, headers ...header) {
		t.Helper()
		r := h.do(method, path, body, headers...)
		var seen strings.Builder
		if err := r.header.Write(&seen); err != nil {
			t.Fatal(err)
		}
		seen.WriteString(r.body)
		if first == "" {
			first = seen.String()
		}
		if r.status != http.StatusNotFound || seen.String() != first {
			t.Errorf("%s answers\n%s\nwant\n%s", name, seen.String(), first)
		}
	}
	unknown := "/api/v1/packages/" + gateway.NewPackageID().String()
	check("unknown", "POST", unknown+"/open", wrong, cookie)
	check("unknown, anonymous", "POST", unknown+"/open", wrong)
	check("unknown object", "GET", unknown+"/objects/"+h.segment, "", cookie, grant)
	original := h.store.packages[h.pkg]
	for name, change := range states {
		h.store.edit(h.pkg, change)
		check(name+", wrong proof", "POST", h.openPath(), wrong, cookie)
		check(name+", long proof", "POST", h.openPath(), proofBody(h.proof+"AAAA"), cookie)
		check(name+", anonymous", "POST", h.openPath(), proofBody(h.proof))
		check(name+", object, anonymous", "GET", h.objectPath(), "", grant)
		check(name+", object, no grant", "GET", h.objectPath(), "", cookie)
		h.store.edit(h.pkg, func(p *gateway.Package) { *p = original })
	}
	h.store.advance(16 * time.Minute)
	check("expired grant", "GET", h.objectPath(), "", cookie, grant)
}

// With a session and the proof, the true state is told; for objects the grant stands for the proof.
func TestTrueStateWithProof(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	grant := h.grant(cookie)
	past := h.store.now.Add(-time.Second)
	original := h.store.packages[h.pkg]
	tests := []struct {
		name   string
		change func(*gateway.Package)
		status int
		code   gateway.Code
	}{
		{"expired", func(p *gateway.Package) { p.Expires = past }, 410, gateway.CodeExpired},
		{"expires now", func(p *gateway.Package) { p.Expires = h.store.now }, 410, gateway.CodeExpired},
		{"erased with its hash kept", func(p *gateway.Package) { p.State = gateway.PackageErased }, 410, gateway.CodeExpired},
		{"revoked", func(p *gateway.Package) { p.State = gateway.PackageRevoked }, 410, gateway.CodeRevoked},
		{"arriving", func(p *gateway.Package) { p.State = gateway.PackageArriving }, 409, gateway.CodeArriving},
		{"in no place", func(p *gateway.Package) { p.Placements = nil }, 403, gateway.CodeForbidden},
		{"in another kind of place", func(p *gateway.Package) {
			p.Placements = []gateway.Placement{{Kind: "dropzone", Expires: p.Expires}}
		}, 403, gateway.CodeForbidden},
		{"in a place that is over", func(p *gateway.Package) {
			p.Placements = []gateway.Placement{{Kind: gateway.PlacementRoute, Expires: past}}
		}, 403, gateway.CodeForbidden},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h.store.edit(h.pkg, test.change)
			defer h.store.edit(h.pkg, func(p *gateway.Package) { *p = original })
			h.store.takeEvents()
			for _, r := range []answer{
				h.do("POST", h.openPath(), proofBody(h.proof), cookie),
				h.do("GET", h.objectPath(), "", cookie, grant),
			} {
				var body errorBody
				if err := json.Unmarshal([]byte(r.body), &body); err != nil {
					t.Fatal(err)
				}
				if r.status != test.status || body.Code != test.code || body.Message == "" {
					t.Errorf("%d %+v, want %d %s", r.status, body, test.status, test.code)
				}
			}
			for _, event := range h.store.takeEvents() {
				if event.Outcome != string(test.code) {
					t.Errorf("audited as %q, want %q", event.Outcome, test.code)
				}
			}
		})
	}
}

func TestOpenHandsOutWhatItMust(t *testing.T) {
	h := newHouse(t)
	reply := h.open(h.cookie())
	if reply.ServerSecret != "the-server-secret-marker" || !bytes.Equal(reply.Head, h.store.blobs[h.head]) {
		t.Errorf("open gave %+v", reply)
	}
	if want := h.store.now.Add(15 * time.Minute); !reply.Expires.Equal(want) {
		t.Errorf("the grant ends at %s, want %s", reply.Expires, want)
	}
	for hash := range h.store.grants {
		if bytes.Contains(hash[:], []byte(reply.Grant)) {
			t.Error("the grant is stored as it is")
		}
	}
}

// Who opens what a virus scanner did not find clean is told so; nothing is said of the rest.
func TestOpenWarnsOfVirus(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	for _, test := range []struct {
		scan gateway.Scan
		want string
	}{
		{gateway.Scan{}, ""},
		{gateway.Scan{Verdict: gateway.ScanClean}, ""},
		{gateway.Scan{Verdict: gateway.ScanInfected, Signature: `Eicar"<b>`}, `{"verdict":"infected","signature":"Eicar\"\u003cb\u003e"}`},
		{gateway.Scan{Verdict: gateway.ScanInfected}, `{"verdict":"infected"}`},
		{gateway.Scan{Verdict: gateway.ScanUnscanned}, `{"verdict":"unscanned"}`},
	} {
		h.store.edit(h.pkg, func(p *gateway.Package) { p.Scan = test.scan })
		r := h.do("POST", h.openPath(), proofBody(h.proof), cookie)
		var reply map[string]json.RawMessage
		if err := json.Unmarshal([]byte(r.body), &reply); err != nil || r.length != int64(len(r.body)) {
			t.Fatalf("%v: %v, %d bytes of %d", test.scan, err, len(r.body), r.length)
		}
		if got := string(reply["scan"]); got != test.want {
			t.Errorf("%v gives scan %s, want %s", test.scan, got, test.want)
		}
	}
}

// A head of any length gives the length that was declared.
func TestOpenDeclaresItsLength(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	for _, size := range []int{0, 1, 2, 3, 70_000} {
		h.store.blobs[h.head] = bytes.Repeat([]byte{0xfb}, size)
		h.store.edit(h.pkg, func(p *gateway.Package) { p.Objects[0].Size = int64(size) })
		r := h.do("POST", h.openPath(), proofBody(h.proof), cookie)
		var reply openReply
		if err := json.Unmarshal([]byte(r.body), &reply); err != nil || len(reply.Head) != size {
			t.Errorf("%d bytes: %v, %d came", size, err, len(reply.Head))
		}
		if int64(len(r.body)) != r.length {
			t.Errorf("%d bytes: declared %d, sent %d", size, r.length, len(r.body))
		}
	}
}

func TestGrantOfAnEndedSession(t *testing.T) {
	tests := map[string]func(*house){
		"agent removed":    func(h *house) { delete(h.store.agents, "a1") },
		"password changed": func(h *house) { h.addAgent("a1", agentAddress, "another") },
		"session expired":  func(h *house) { h.store.advance(13 * time.Hour) },
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, func(o *Options) { o.GrantLifetime = 20 * time.Hour })
			cookie := h.cookie()
			grant := h.grant(cookie)
			end(h)
			if r := h.do("GET", h.objectPath(), "", cookie, grant); r.status != http.StatusNotFound {
				t.Errorf("object: %d", r.status)
			}
			if r := h.do("POST", h.openPath(), proofBody(h.proof), cookie); r.status != http.StatusNotFound {
				t.Errorf("open: %d", r.status)
			}
			if r := h.do("GET", "/api/v1/session", "", cookie); !strings.Contains(r.body, `"authenticated":false`) {
				t.Error("the session still counts")
			}
		})
	}
}

// Every log-in, open and download is recorded with its outcome, and what cannot be recorded does not happen.
func TestAuditEventsAndFailClosed(t *testing.T) {
	h := newHouse(t)
	h.do("POST", "/api/v1/login", loginBody("nobody@example.com", "x", false))
	h.do("POST", "/api/v1/login", loginBody(agentAddress, "x", false))
	cookie := h.cookie()
	h.do("POST", h.openPath(), proofBody("AAAA"), cookie)
	grant := h.grant(cookie)
	h.do("GET", h.objectPath(), "", cookie)
	h.do("GET", h.objectPath(), "", cookie, grant)
	h.do("GET", h.objectPath(), "", cookie, grant, header{"Range", "bytes=7-"})
	h.do("HEAD", h.objectPath(), "", cookie, grant)
	h.do("POST", h.openPath(), proofBody(h.proof)) // no session: not audited

	type line struct{ action, agent, object, outcome string }
	var got []line
	for _, e := range h.store.takeEvents() {
		got = append(got, line{string(e.Action), e.Principal.ID, e.Object, e.Outcome})
		if e.Client.Reveal() != "192.0.2.1" || e.Principal.Kind != gateway.PrincipalAgent {
			t.Errorf("%s came from %s, %s", e.Action, e.Client.Reveal(), e.Principal.Kind)
		}
		if (e.Package != nil) != (e.Action == gateway.AuditOpen || e.Action == gateway.AuditDownload) {
			t.Errorf("%s names package %v", e.Action, e.Package)
		}
	}
	want := []line{
		{"login", "", "", "unauthenticated"}, {"login", "a1", "", "unauthenticated"}, {"login", "a1", "", "ok"},
		{"open", "a1", "", "not_found"}, {"open", "a1", "", "ok"},
		{"download", "a1", "", "not_found"}, {"download", "a1", h.segment, "ok"}, {"download", "a1", h.segment, "ok"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited\n%v\nwant\n%v", got, want)
	}

	h.store.failAudit(errors.New("disk full"))
	sessions := len(h.store.sessions)
	for name, r := range map[string]answer{
		"login":  h.do("POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false)),
		"open":   h.do("POST", h.openPath(), proofBody(h.proof), cookie),
		"object": h.do("GET", h.objectPath(), "", cookie, grant),
	} {
		if r.status != http.StatusServiceUnavailable || strings.Contains(r.body, "marker") || len(r.cookies) > 0 {
			t.Errorf("%s without an audit log: %d %.100s", name, r.status, r.body)
		}
	}
	if len(h.store.sessions) != sessions {
		t.Error("a session began that was not recorded")
	}
}
