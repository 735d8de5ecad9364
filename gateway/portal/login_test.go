package portal

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func atURL(raw string) func(*Options) {
	return func(o *Options) { o.URL, _ = url.Parse(raw) }
}

func TestCookieFollowsTheURL(t *testing.T) {
	for raw, want := range map[string]struct {
		name   string
		secure bool
	}{
		"http://127.0.0.1:8080":     {"sealpost_session", false},
		"http://localhost":          {"sealpost_session", false},
		"http://[::1]:80":           {"sealpost_session", false},
		"https://files.example.com": {"__Host-sealpost_session", true},
		"https://127.0.0.1:8443":    {"__Host-sealpost_session", true},
	} {
		t.Run(raw, func(t *testing.T) {
			h := newHouse(t, atURL(raw))
			r := h.do("POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false))
			c := r.cookies[0]
			if c.Name != want.name || c.Secure != want.secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode ||
				c.Path != "/" || c.Domain != "" || c.MaxAge != 0 || !c.Expires.IsZero() {
				t.Errorf("cookie is %s", c)
			}
			if hsts := r.header.Get("Strict-Transport-Security"); (hsts != "") != want.secure {
				t.Errorf("Strict-Transport-Security is %q", hsts)
			}
			session := header{"Cookie", c.Name + "=" + c.Value}
			out := h.do("POST", "/api/v1/logout", "", session).cookies
			if len(out) != 1 || out[0].MaxAge >= 0 || out[0].Name != c.Name || out[0].Secure != c.Secure || out[0].Path != "/" {
				t.Errorf("log-out leaves the cookie: %v", out)
			}
		})
	}
}

func TestURLsThatArePlainlyWrong(t *testing.T) {
	store := newMemStore()
	for _, raw := range []string{
		"", "http://files.example.com", "ftp://127.0.0.1", "https://", "https://h/path", "https://h?q=1", "https://h/#f",
		"https://user:secret@h", "http://192.0.2.1",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = New(Options{URL: u}, store, store, store, &plainPasswords{})
		if err == nil {
			t.Errorf("%q was taken", raw)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

// One cookie name and one Secure attribute serve all URLs, so their schemes may not differ.
func TestOtherURLsThatArePlainlyWrong(t *testing.T) {
	store := newMemStore()
	for _, test := range []struct {
		first, other string
		taken        bool
	}{
		{"https://files.example.com", "https://files.example.net/", true},
		{"http://localhost:1", "http://127.0.0.1:2", true},
		{"https://files.example.com", "http://localhost", false},
		{"http://localhost", "https://files.example.com", false},
		{"https://files.example.com", "https://files.example.net/path", false},
		{"https://files.example.com", "", false},
	} {
		other, err := url.Parse(test.other)
		if err != nil {
			t.Fatal(err)
		}
		opts := Options{OtherURLs: []*url.URL{other}}
		atURL(test.first)(&opts)
		if _, err := New(opts, store, store, store, &plainPasswords{}); (err == nil) != test.taken {
			t.Errorf("%s with %q: %v", test.first, test.other, err)
		}
	}
}

// The token that the store knows is not the one that opens.
func TestSessionsAreStoredHashed(t *testing.T) {
	h := newHouse(t)
	token := strings.SplitN(h.cookie().value, "=", 2)[1]
	for stored, session := range h.store.sessions {
		if strings.Contains(stored, token) || strings.Contains(string(session.data), token) {
			t.Error("a session token is stored as it is")
		}
		if stored != hashedToken(token) || session.agent != "a1" {
			t.Errorf("the session is not bound to its agent: %+v", session.agent)
		}
		if r := h.do("POST", h.openPath(), proofBody(h.proof), header{"Cookie", "sealpost_session=" + stored}); r.status != http.StatusNotFound {
			t.Errorf("a stored token opens: %d", r.status)
		}
	}
}

// A session that a stranger prepared does not become the agent's.
func TestLoginDoesNotAdoptASession(t *testing.T) {
	h := newHouse(t)
	r := h.do("POST", "/api/v1/login", loginBody(agentAddress, agentPassword, false), header{"Cookie", "sealpost_session=chosen"})
	if c := r.cookies; len(c) != 1 || c[0].Value == "chosen" || c[0].Value == "" {
		t.Errorf("cookies: %v", c)
	}
}

func TestUnknownAgentAndWrongPasswordAreAlike(t *testing.T) {
	h := newHouse(t)
	wrong := h.do("POST", "/api/v1/login", loginBody(agentAddress, "x", false)).body
	unknown := h.do("POST", "/api/v1/login", loginBody("nobody@example.com", "x", false)).body
	if wrong != unknown {
		t.Errorf("wrong password: %s\nunknown agent: %s", wrong, unknown)
	}
	if h.passwords.verify != 1 || h.passwords.dummy != 1 {
		t.Errorf("%d checks and %d dummy checks, want one each", h.passwords.verify, h.passwords.dummy)
	}
}

// from sends a log-in from an address and returns the status.
func (h *house) loginFrom(client, agent, password string) answer {
	r := h.request("POST", "/api/v1/login", loginBody(agent, password, false))
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(client), 4711).String()
	return h.send(r)
}

func (h *house) wantLogin(client, agent, password string, want int) {
	h.t.Helper()
	r := h.loginFrom(client, agent, password)
	if r.status != want {
		h.t.Errorf("log-in from %s: %d, want %d: %s", client, r.status, want, r.body)
	}
	if limited := r.status == http.StatusTooManyRequests; limited != (r.header.Get("Retry-After") != "") {
		h.t.Errorf("%d with Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	const wrong, limited, ok = http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusOK
	t.Run("one client, one account", func(t *testing.T) {
		h := newHouse(t)
		for range 5 {
			h.wantLogin("192.0.2.66", agentAddress, "guess", wrong)
		}
		h.wantLogin("192.0.2.66", agentAddress, agentPassword, limited)
		h.wantLogin("192.0.2.66", strings.ToUpper(agentAddress)+" ", agentPassword, limited)
		h.wantLogin("192.0.2.66", strings.Replace(agentAddress, "example", "exampｌe", 1), agentPassword, limited)
		h.wantLogin("192.0.2.7", agentAddress, agentPassword, ok) // the right agent, elsewhere
		h.store.advance(15*time.Minute + time.Second)
		h.wantLogin("192.0.2.66", agentAddress, agentPassword, ok) // not for ever
	})
	t.Run("one client, many accounts", func(t *testing.T) {
		h := newHouse(t)
		for i := range 50 {
			h.wantLogin("2001:db8::"+string(rune('a'+i%6)), "a"+strings.Repeat("x", i)+"@example.com", "guess", wrong)
		}
		h.wantLogin("2001:db8::ffff", agentAddress, agentPassword, limited) // the same /64
		h.wantLogin("2001:db8:0:1::1", agentAddress, agentPassword, ok)
	})
	t.Run("many clients, one account", func(t *testing.T) {
		h := newHouse(t)
		for i := range 100 {
			h.wantLogin(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}).String(), agentAddress, "guess", wrong)
		}
		h.wantLogin("10.1.0.1", agentAddress, agentPassword, limited)
		h.store.advance(time.Hour + time.Second)
		h.wantLogin("10.1.0.1", agentAddress, agentPassword, ok)
	})
	t.Run("success counts nowhere and forgives", func(t *testing.T) {
		h := newHouse(t)
		for range 3 {
			for range 4 {
				h.wantLogin("192.0.2.1", agentAddress, "typo", wrong)
			}
			h.wantLogin("192.0.2.1", agentAddress, agentPassword, ok)
		}
		for range 100 {
			h.wantLogin("192.0.2.1", agentAddress, agentPassword, ok)
		}
		for i := range 180 {
			h.wantLogin(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}).String(), agentAddress, "guess", wrong)
			if i%90 == 89 {
				h.wantLogin("192.0.2.1", agentAddress, agentPassword, ok)
			}
		}
	})
	t.Run("a limited log-in is not checked", func(t *testing.T) {
		h := newHouse(t)
		for range 8 {
			h.loginFrom("192.0.2.1", agentAddress, "guess")
		}
		if h.passwords.verify != 5 {
			t.Errorf("%d passwords were checked, want 5", h.passwords.verify)
		}
	})
}

// Guesses in parallel do not all pass the limit at once: few are checked at a time, and each failure is
// counted before the next guess is looked at.
func TestParallelGuessesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.passwords.enter = make(chan struct{})
		for range 40 {
			go h.loginFrom("192.0.2.1", agentAddress, "guess")
		}
		for synctest.Wait(); h.passwords.inside > 0; synctest.Wait() {
			h.passwords.enter <- struct{}{}
		}
		if h.passwords.widest != parallelChecks || h.passwords.verify > 5+parallelChecks-1 {
			t.Errorf("%d guesses were checked, %d at once", h.passwords.verify, h.passwords.widest)
		}
	})
}

func TestClientAddress(t *testing.T) {
	p := &portal{opts: Options{TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	}}}
	tests := []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"direct", "192.0.2.1:1", nil, "192.0.2.1"},
		{"direct, forged", "192.0.2.1:1", []string{"198.51.100.1"}, "192.0.2.1"},
		{"proxy", "10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"proxy, forged start", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:1", []string{"203.0.113.9", "198.51.100.1, 10.2.0.1"}, "198.51.100.1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"proxy, nonsense", "10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"proxy, nothing", "10.0.0.1:1", nil, "10.0.0.1"},
		{"mapped peer", "[::ffff:10.0.0.1]:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 proxy", "[::1]:1", []string{"198.51.100.1"}, "198.51.100.1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = test.peer
			r.Header["X-Forwarded-For"] = test.forwarded
			if got := p.client(r).String(); got != test.want {
				t.Errorf("client is %s, want %s", got, test.want)
			}
		})
	}
}
