package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"sealpost/gateway"
	"sealpost/sfclient/sftest"
)

// TestLateBounceHidesAnOldForwardTo: a bounce that comes after forward_to was corrected shows neither the old nor the new one.
func TestLateBounceHidesAnOldForwardTo(t *testing.T) {
	const corrected = "support@x-9z8y7x6w5v.case.salesforce.com"
	outside, org := startOrg(t, sftest.Options{}), startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "gw"), org.Addr())
	n.appendConfig(t, "srs: {domain: bounces.example.com, keys: srs-keys, bounce_next_hop: \"smtp://"+outside.Addr()+"\"}")
	n.must(t, "srs", "rotate", "--config", n.config())
	n.start(t, "sealpost")
	dial(t, n.smtp).give("jane@customer.example", testRoute, mailWith("late", "text", []byte("file")), "250")
	from := waitMails(t, org, 1)[0].From
	n.stop(t)

	replaceInConfig(t, n, forwardTo, corrected)
	n.start(t, "sealpost")
	bounce := "From: MAILER-DAEMON@hop.example\r\nTo: " + from + "\r\nSubject: failed\r\n\r\n<" + forwardTo +
		">: 550 5.2.2 mailbox full\r\n"
	dial(t, n.smtp).give("", from, []byte(bounce), "250")
	returned := bytes.ToLower(waitMails(t, outside, 1)[0].Raw)
	_, label, _ := strings.Cut(forwardTo, "@")
	label, _, _ = strings.Cut(label, ".")
	for _, secret := range []string{forwardTo, corrected, label} {
		if bytes.Contains(returned, []byte(secret)) {
			t.Errorf("%s went outside:\n%s", secret, returned)
		}
	}
	if !bytes.Contains(returned, []byte("status: 5.2.2")) || !bytes.Contains(returned, []byte(testRoute)) {
		t.Errorf("status or public address are missing:\n%s", returned)
	}
}

// fakeForwardings remember what they are told.
type fakeForwardings struct {
	known map[string]string
	err   error
}

func (f *fakeForwardings) ForwardedTo(context.Context) (map[string]string, error) {
	return maps.Clone(f.known), f.err
}

func (f *fakeForwardings) KeepForwardedTo(_ context.Context, addresses map[string]string) error {
	maps.Copy(f.known, addresses)
	return f.err
}

// TestBouncesWaitUntilItIsKnownWhatToHide: what is not known cannot be hidden, so a bounce is deferred then.
func TestBouncesWaitUntilItIsKnownWhatToHide(t *testing.T) {
	const old = "support@x-old1a2b3c.case.salesforce.com"
	store := &fakeForwardings{known: map[string]string{old: "support@example.com"}, err: errors.New("the database is away")}
	routes := &router{routes: map[string]gateway.Route{}}
	r := newReturner(t.Context(), "mx.example.com", routes, store, slog.New(slog.DiscardHandler))
	mail := strings.NewReader("From: mailer-daemon@hop.example\r\n\r\n<" + old + ">: 550 5.2.2 full\r\n")
	var out bytes.Buffer
	err := r.Return(t.Context(), &out, "jane@customer.example", mail, mail.Size(), nil)
	if gateway.ErrorCode(err) != gateway.CodeUnavailable || out.Len() > 0 || r.next != hiddenAgain {
		t.Errorf("%v, %d bytes, asked again after %v", err, out.Len(), r.next)
	}
	store.err = nil
	r.learn(t.Context())
	if err := r.Return(t.Context(), &out, "jane@customer.example", mail, mail.Size(), nil); err != nil || r.next != hiddenEvery {
		t.Errorf("%v, asked again after %v", err, r.next)
	}
	if !strings.Contains(out.String(), "5.2.2") || strings.Contains(out.String(), "x-old1a2b3c") {
		t.Errorf("it went back:\n%s", out.String())
	}
}

// TestWhatIsHidden: the configured address counts most, what has become public is not hidden, and all is kept.
func TestWhatIsHidden(t *testing.T) {
	store := &fakeForwardings{known: map[string]string{
		"old@inner.example": "gone@example.com", "new@inner.example": "gone@example.com", "help@example.com": "support@example.com",
	}}
	routes := &router{delimiter: "+", routes: map[string]gateway.Route{
		"support@example.com": {Address: "support@example.com", ForwardTo: "new@inner.example"},
		"help@example.com":    {Address: "help@example.com", ForwardTo: "help@inner.example"},
	}}
	r := newReturner(t.Context(), "mx.example.com", routes, store, slog.New(slog.DiscardHandler))
	want := map[string]string{
		"old@inner.example": "gone@example.com", "new@inner.example": "support@example.com", "help@inner.example": "help@example.com",
	}
	if got := *r.hide.Load(); !maps.Equal(got, want) {
		t.Errorf("hidden are %v", got)
	}
	want["help@example.com"] = "support@example.com"
	if !maps.Equal(store.known, want) {
		t.Errorf("kept are %v", store.known)
	}
}
