package portal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

// signer gives URLs that say what they are for.
type signer struct{ fails bool }

func (s signer) URL(_ context.Context, object string, valid time.Duration) (gateway.Secret, error) {
	if s.fails {
		return gateway.Secret{}, errors.New("no credentials")
	}
	return gateway.NewSecret("https://bucket.example/" + object + "?valid=" + valid.Round(time.Minute).String()), nil
}

func (signer) Origin() string { return "https://bucket.example" }

// TestDirectURLs: an object's URL goes to who may have the object, for as long as the grant, and the pages may
// connect there.
func TestDirectURLs(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Direct = signer{} })
	cookie := h.cookie()
	grant := h.grant(cookie)
	path := strings.Replace(h.objectPath(), "/objects/", "/urls/", 1)
	for name, test := range map[string]struct {
		headers []header
		want    int
	}{
		"nothing": {nil, 404}, "no grant": {[]header{cookie}, 404}, "no session": {[]header{grant}, 404},
		"another's grant": {[]header{h.cookie(), grant}, 404}, "both": {[]header{cookie, grant}, 200},
	} {
		r := h.do("GET", path, "", test.headers...)
		if r.status != test.want {
			t.Errorf("%s: %d, want %d", name, r.status, test.want)
		}
		if test.want == 200 && !strings.Contains(r.body, `"url":"https://bucket.example/`+h.segment+`?valid=15m0s"`) {
			t.Errorf("%s: %s", name, r.body)
		}
		if !strings.Contains(r.header.Get("Content-Security-Policy"), "connect-src 'self' https://bucket.example;") {
			t.Errorf("the policy is %s", r.header.Get("Content-Security-Policy"))
		}
	}
	if r := h.do("GET", path+"0", "", cookie, grant); r.status != 404 {
		t.Errorf("an object of no package: %d", r.status)
	}
	if strings.Contains(h.logs.String(), "bucket.example") {
		t.Error("a URL is in the log")
	}
}

func TestNoDirectURLs(t *testing.T) {
	h := newHouse(t)
	cookie := h.cookie()
	path := strings.Replace(h.objectPath(), "/objects/", "/urls/", 1)
	if r := h.do("GET", path, "", cookie, h.grant(cookie)); r.status != 404 {
		t.Errorf("%d where objects come through the portal", r.status)
	}
	h = newHouse(t, func(o *Options) { o.Direct = signer{fails: true} })
	cookie = h.cookie()
	if r := h.do("GET", path, "", cookie, h.grant(cookie)); r.status == 200 || strings.Contains(r.body, "credentials") {
		t.Errorf("a failure answers %d: %s", r.status, r.body)
	}
}
