package config_test

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sealpost/gateway/config"
)

func written(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	err := config.Write(&out, config.Values{
		Hostname: "mx.example.com", Data: "/srv/sealpost: data", Keyring: "keyring",
		PostmasterForwardTo: "postmaster@example.com", NextHop: "smtp://127.0.0.1:2626",
		SMTPListen: "127.0.0.1:2525", PortalListen: "127.0.0.1:8080", PortalURL: "http://127.0.0.1:8080",
		Routes: []config.RouteValues{
			{Address: "support@example.com", ForwardTo: "support@x-1a2b3c.case.salesforce.com"},
			{Address: "claims@example.com", ForwardTo: "claims@x-1a2b3c.case.salesforce.com"},
		},
		RecoveryKey: "recovery-public.asc",
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWrittenFileParses(t *testing.T) {
	c, err := config.Parse("/etc/sealpost/sealpost.yaml", []byte(written(t)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/srv/sealpost: data" || c.Keyring != "/etc/sealpost/keyring" || c.RecoveryKeys[0] != "/etc/sealpost/recovery-public.asc" {
		t.Errorf("paths: %q %q %q", c.Data, c.Keyring, c.RecoveryKeys)
	}
	route := c.Routes[0]
	if route.NextHop != (config.Hop{Host: "127.0.0.1", Port: 2626}) || route.TLS != config.TLSOpportunistic ||
		route.ExpireAfter.Std() != 365*24*time.Hour {
		t.Errorf("route: %+v", route)
	}
	if c.SMTP.MaxMessageSize != 150_000_000 || c.SMTP.Limits.Recipients != 100 {
		t.Errorf("defaults: %+v", c.SMTP)
	}
}

// TestCommentedDefaultsAreTheDefaults uncomments every key of the written file and expects no change
// but in those that have no default.
func TestCommentedDefaultsAreTheDefaults(t *testing.T) {
	text := written(t)
	all := regexp.MustCompile(`(?m)^(\s*)#([a-z])`).ReplaceAllString(text, "$1$2")
	all = regexp.MustCompile(`(?m)^(\s*)#((?:  )+[a-z_]+:)`).ReplaceAllString(all, "$1$2")
	all = strings.ReplaceAll(all, "/etc/sealpost/tls", "tls")
	before, err := config.Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	after, err := config.Parse("f", []byte(all))
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	if !after.SMTP.TLS.Enabled() || !after.Portal.TLS.Enabled() {
		t.Error("the tls keys were not uncommented")
	}
	after.SMTP.TLS, after.Portal.TLS = before.SMTP.TLS, before.Portal.TLS
	if before.SMTP.Limits != after.SMTP.Limits || before.ExpireAfter != after.ExpireAfter || before.Log != after.Log ||
		before.SMTP.MaxMessageSize != after.SMTP.MaxMessageSize || before.Database != after.Database ||
		before.Metrics != after.Metrics || before.Routes[0] != after.Routes[0] || before.Notice != after.Notice ||
		!samePolicy(before.Policy, after.Policy) || before.ReplayWindow != after.ReplayWindow {
		t.Errorf("the file shows defaults that are not:\n%+v\n%+v", before, after)
	}
}

func samePolicy(a, b config.Policy) bool {
	return slices.Equal(a.KeepTypes, b.KeepTypes) && a.InlineImages == b.InlineImages && a.Forwarded == b.Forwarded && a.Signed == b.Signed &&
		a.Text.Card == b.Text.Card && a.Text.IBAN == b.Text.IBAN && a.Text.SSN == b.Text.SSN && slices.Equal(a.Text.Patterns, b.Text.Patterns)
}

func TestProblemsNameFileLineAndTheNearestKey(t *testing.T) {
	tests := []struct{ change, to, want string }{
		{"hostname:", "hostnam:", `f.yaml:6: hostnam: unknown key; did you mean "hostname"?`},
		{"  listen: [", "  lisen: [", `smtp.lisen: unknown key; did you mean "listen"?`},
		{"    forward_to: support@", "    forwrd_to: support@", `routes[0].forwrd_to: unknown key; did you mean "forward_to"?`},
		{"address: support@example.com", "address: support", `routes[0].address: "support" is not a mail address`},
		{"url: http://127.0.0.1:8080", "url: http://files.example.com", "portal.url: must be https"},
		{"next_hop: smtp://127.0.0.1:2626", "next_hop: mail.example.com", `is not a next hop; write it like`},
		{"#max_message_size: 150MB", "max_message_size: 150 apples", `is not a size; write it like`},
		{"\n#expire_after: 365d", "\nexpire_after: 365", `is not a duration; write it like`},
		{"#allow_from: []", "allow_from: [10.0.0.0/99]", "f.yaml:38: smtp.allow_from[0]: "},
		{"#database: sqlite", "database: mysql", `database: is neither sqlite nor the URL of a PostgreSQL database; write sqlite`},
		{"#database: sqlite", "database: postgres://sealpost:geheim@db.example.com/sealpost", "database: must not hold the password"},
		{"#database: sqlite", "database: postgres://db.example.com", "database: names no database"},
		{"#blobs: dir", "blobs: s3://bucket?regoin=eu", "blobs: "},
		{"  #direct_downloads: false", "  direct_downloads: true", "portal.direct_downloads: needs blobs on S3"},
		{"#  recipients: 100", "limits: {recipients: 0}", "smtp.limits.recipients: must be more than 0"},
		{"hostname: mx.example.com", "hostname: [", "f.yaml:"},
		{"hostname: mx.example.com", "hostname: {a: b}", "hostname.a: there is nothing below hostname"},
		{"listen: [127.0.0.1:2525]", "listen: [localhost]", `"localhost" is not an address to listen on`},
		{"#dns: []", "dns: [localhost]", `dns[0]: "localhost" is not a DNS server`},
		{"  #listen_tls: []", "  listen_tls: [\"127.0.0.1:4650\"]", "smtp.listen_tls: needs a certificate"},
		{"  #recipient_delimiter: \"+\"", "  recipient_delimiter: \"+-\"", "smtp.recipient_delimiter: must be one character"},
		{"    #dmarc: note", "    dmarc: ignore", `routes[0].dmarc: "ignore" is not possible`},
		{"    #notice_language: \"\"", "    notice_language: it", `routes[0].notice_language: "it" is not possible`},
		{"    #auth: {}", "    auth: {user: me}", "routes[0].auth: needs user, and one of password_file and password_env"},
		{"    next_hop: smtp://127.0.0.1:2626", "    tls: verify", "routes[0].tls: verify needs next_hop"},
		{"\nrecovery_keys:", "\n  - {address: sales@example.com, forward_to: Support@x-1a2b3c.case.salesforce.com, tls: require}\nrecovery_keys:",
			"routes[2].forward_to: support@example.com has the same, and another next_hop, tls or auth"},
		{"    #portal_url: \"\"", "    portal_url: http://files.example.org", "routes[0].portal_url: must be https"},
		{"\n#dns: []", "\nsrs: {domain: example.com, keys: k}\n#dns: []", "srs.domain: example.com has mailboxes of its own"},
		{"\n#dns: []", "\nsrs: {domain: bounces.example.com}\n#dns: []", "srs: needs both domain and keys"},
		{"\n#dns: []", "\nscan: {clamd: /run/clamd}\n#dns: []", `is not where clamd listens`},
		{"recovery_keys: [recovery-public.asc]", "recovery_keys: []", "recovery_keys: name at least one"},
	}
	for _, test := range tests {
		text := strings.Replace(written(t), test.change, test.to, 1)
		if text == written(t) {
			t.Fatalf("%q is not in the file", test.change)
		}
		_, err := config.Parse("f.yaml", []byte(text))
		var problems config.Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v\nwant %s", test.to, err, test.want)
		}
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := config.Parse("f.yaml", nil)
	for _, key := range []string{"hostname", "data", "keyring", "portal.url", "routes", "recovery_keys", "postmaster.forward_to"} {
		if err == nil || !strings.Contains(err.Error(), "f.yaml: "+key+": ") {
			t.Errorf("%s is not reported: %v", key, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("hostname: a\nroutes: [{address: b}]\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("f.yaml", data)
		if (c == nil) == (err == nil) {
			t.Errorf("config %v and error %v", c, err)
		}
	})
}
