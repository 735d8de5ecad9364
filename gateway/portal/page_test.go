package portal

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/gateway"
)

// The page is the same for every ID, for everyone.
func TestPageTellsNothing(t *testing.T) {
	h := newHouse(t)
	known := h.do("GET", "/p/"+h.pkg.String(), "", h.cookie()).body
	unknown := h.do("GET", "/p/"+gateway.NewPackageID().String(), "").body
	if known != unknown {
		t.Error("the page differs between packages")
	}
	if inline := regexp.MustCompile(`(?i)<script(>|[^>]*[^"]>)[^<]|<style| style=| on[a-z]+=`).FindString(known); inline != "" {
		t.Errorf("the page has inline code, which its policy forbids: %q", inline)
	}
}

func TestAssetsAreImmutable(t *testing.T) {
	h := newHouse(t)
	page := h.do("GET", "/", "").body
	links := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if strings.Contains(page, "were not built") {
		t.Fatal("the pages were not built: run gateway/portal/ui/build.sh")
	}
	if len(links) != 4 {
		t.Fatalf("the page names %d assets, want 4", len(links))
	}
	for _, link := range links {
		r := h.do("GET", link[1], "")
		if r.status != http.StatusOK || !strings.Contains(r.header.Get("Cache-Control"), "immutable") || r.header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %v", link[1], r.status, r.header)
		}
		if !regexp.MustCompile(`-[A-Z0-9]{8}\.`).MatchString(link[1]) {
			t.Errorf("%s has no hash in its name", link[1])
		}
	}
}

// Without the built files the page says so instead of failing.
func TestPagesThatWereNotBuilt(t *testing.T) {
	names, err := readBundle(fstest.MapFS{})
	if err != nil || names != (bundle{}) {
		t.Errorf("no build gives %+v, %v", names, err)
	}
	partial := fstest.MapFS{"dist/meta.json": {Data: []byte(`{"outputs":{"web/dist/link-X.js":{"entryPoint":"src/link.ts"}}}`)}}
	if _, err := readBundle(partial); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("half a build gives %v", err)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	var notReady error
	h := newHouse(t, func(o *Options) { o.Ready = func(context.Context) error { return notReady } })
	want := func(path string, status int, body string) {
		t.Helper()
		r := h.do("GET", path, "")
		if got := r.body; r.status != status || got != body {
			t.Errorf("%s: %d %q, want %d %q", path, r.status, got, status, body)
		}
	}
	want("/readyz", 200, "ready\n")
	notReady = gateway.Errorf(gateway.CodeStorageFull, nil, "no room in /var/lib")
	want("/readyz", 503, "storage_full\n")
	want("/healthz", 200, "ok\n")
}

// One line per request; no proof, token, grant, cookie, keycode, agent or client in any of them.
func TestLogsHoldNoSecrets(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := newHouse(t, func(o *Options) { o.Metrics = reg })
	cookie, bearer := h.cookie(), h.bearer()
	grant := h.grant(cookie)
	h.do("GET", h.objectPath(), "", cookie, grant)
	h.do("POST", h.openPath(), proofBody(h.proof)+"{", bearer)
	h.do("POST", "/api/v1/login", loginBody(agentAddress, "a-wrong-password", false))
	h.do("GET", "/p/"+h.pkg.String()+"%23keycode-in-the-path", "")
	h.do("GET", "/p/"+h.pkg.String()+"?k=keycode-in-the-query", "")
	h.do("keycode-as-a-method", "/", "")
	delete(h.store.blobs, h.segment)
	h.do("GET", h.objectPath(), "", cookie, grant)

	logs := h.logs.String()
	for name, secret := range map[string]string{
		"cookie": strings.SplitN(cookie.value, "=", 2)[1], "token": strings.TrimPrefix(bearer.value, "Bearer "),
		"grant": grant.value, "proof": h.proof, "password": agentPassword, "wrong password": "a-wrong", "agent": agentAddress,
		"client": "192.0.2.1", "keycode": "keycode", "server secret": "marker",
	} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds the %s:\n%s", name, logs)
		}
	}
	if n := strings.Count(logs, `msg="portal request" `); n != 10 {
		t.Errorf("%d lines for 10 requests:\n%s", n, logs)
	}
	if !strings.Contains(logs, `route="POST /api/v1/packages/{id}/open" status=200`) || !strings.Contains(logs, h.pkg.String()) {
		t.Errorf("a line does not name route and package:\n%s", logs)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 5 {
		t.Errorf("%d metrics, want 5", len(families))
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "sealpost_portal_") || strings.Contains(family.String(), h.pkg.String()) {
			t.Errorf("metric %s", family)
		}
	}
}

func TestServerLogHidesClients(t *testing.T) {
	var out bytes.Buffer
	server := NewServer(http.NotFoundHandler(), slog.New(slog.NewTextHandler(&out, nil)))
	server.ErrorLog.Printf("http: TLS handshake error from 192.0.2.1:4711: EOF")
	server.ErrorLog.Printf("http: panic serving [2001:db8::1]:4711: boom")
	for _, hidden := range []string{"192.0.2.1", "2001:db8"} {
		if strings.Contains(out.String(), hidden) {
			t.Errorf("the log names a client: %s", out.String())
		}
	}
	if !strings.Contains(out.String(), "EOF") || !strings.Contains(out.String(), "boom") {
		t.Errorf("the log lost what happened: %s", out.String())
	}
}

// Several brands share a portal: each one's page is our own, whichever host a proxy passes on.
func TestEveryPortalURLIsOurOwn(t *testing.T) {
	h := newHouse(t, atURL("https://files.example.com"), func(o *Options) {
		o.OtherURLs = []*url.URL{{Scheme: "https", Host: "files.example.net"}}
	})
	for origin, want := range map[string]int{
		"https://files.example.com": http.StatusOK, "https://files.example.net": http.StatusOK,
		"https://files.example.org": http.StatusForbidden, "http://files.example.net": http.StatusForbidden,
	} {
		for _, host := range []string{"backend:8080", "files.example.com"} {
			r := httptest.NewRequest(http.MethodPost, "http://"+host+"/api/v1/login", strings.NewReader(loginBody(agentAddress, agentPassword, false)))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Origin", origin)
			got := h.send(r)
			if got.status != want {
				t.Errorf("log-in at %s from %s: %d, want %d", host, origin, got.status, want)
			}
			if want == http.StatusOK && (len(got.cookies) != 1 || !got.cookies[0].Secure) {
				t.Errorf("log-in at %s from %s: cookies %v", host, origin, got.cookies)
			}
		}
	}
}

// A proxy that rewrites Host does not turn our own page into a stranger.
func TestOwnOriginBehindAProxy(t *testing.T) {
	h := newHouse(t, atURL("https://files.example.com"))
	r := httptest.NewRequest(http.MethodPost, "http://backend:8080/api/v1/login", strings.NewReader(loginBody(agentAddress, agentPassword, false)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", "https://files.example.com")
	if got := h.send(r); got.status != http.StatusOK {
		t.Errorf("log-in through a proxy: %d", got.status)
	}
}
