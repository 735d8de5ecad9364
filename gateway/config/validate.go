package config

import (
	"cmp"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"sealpost/crypto"
)

func (c *Config) resolvePaths(base string) {
	paths := []*string{&c.Data, &c.Keyring, &c.ACME.Roots, &c.Relay.Roots, &c.SRS.Keys, &c.Postmaster.Auth.PasswordFile,
		&c.Notice.Text, &c.Notice.HTML}
	for _, t := range []*TLS{&c.SMTP.TLS, &c.Portal.TLS} {
		paths = append(paths, &t.Cert, &t.Key)
		for i := range t.Certificates {
			paths = append(paths, &t.Certificates[i].Cert, &t.Certificates[i].Key)
		}
	}
	for i := range c.RecoveryKeys {
		paths = append(paths, &c.RecoveryKeys[i])
	}
	for i := range c.Routes {
		paths = append(paths, &c.Routes[i].Auth.PasswordFile)
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) && (path != &c.Keyring || !strings.HasPrefix(*path, KeyringEnv)) {
			*path = filepath.Join(base, *path)
		}
	}
}

// validate reports everything that the file alone shows to be wrong, and fills in what follows from
// other keys.
func (d *document) validate(c *Config) {
	d.required("hostname", c.Hostname, "the name that other mail servers know us by, such as mx.example.com")
	d.required("data", c.Data, "the directory for the database, the sealed files and the spool")
	d.required("keyring", strings.TrimPrefix(c.Keyring, KeyringEnv), "the file that `sealpost init` made, kept out of data's backups, or env: and the name of a variable that holds its content")
	d.validateStorage(c)
	d.validatePolicy(&c.Policy)
	d.validateNotice(&c.Notice)
	d.oneOf("log.format", c.Log.Format, "text", "json")
	d.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	if c.ExpireAfter <= 0 {
		d.report("expire_after", "must be more than 0")
	}
	if len(c.RecoveryKeys) == 0 {
		d.report("recovery_keys", "name at least one public recovery key; without it nothing can be read when the database is lost")
	}
	d.validateSMTP(&c.SMTP)
	d.validatePortal(&c.Portal)
	d.validateMailWorld(c)
	if c.Metrics.Listen != "" {
		d.listener("metrics.listen", c.Metrics.Listen)
	}
	d.validateRoutes(c)
}

func (d *document) validateSMTP(s *SMTP) {
	if len(s.Listen) == 0 {
		d.report("smtp.listen", "name at least one address, such as 0.0.0.0:25")
	}
	for i, address := range s.Listen {
		d.listener("smtp.listen["+strconv.Itoa(i)+"]", address)
	}
	for i, address := range s.ListenTLS {
		d.listener("smtp.listen_tls["+strconv.Itoa(i)+"]", address)
	}
	if len(s.ListenTLS) > 0 && !s.TLS.Enabled() {
		d.report("smtp.listen_tls", "needs a certificate: smtp.tls")
	}
	if len(s.RecipientDelimiter) > 1 || strings.ContainsAny(s.RecipientDelimiter, "@\"\\ ") {
		d.report("smtp.recipient_delimiter", "must be one character, such as +, or empty")
	}
	d.oneOf("smtp.bare_newlines", s.BareNewlines, NewlinesReject, NewlinesNormalize)
	d.certificate("smtp.tls", s.TLS)
	positive := map[string]int64{
		"max_message_size": int64(s.MaxMessageSize), "limits.recipients": int64(s.Limits.Recipients),
		"limits.connections": int64(s.Limits.Connections), "limits.received_fields": int64(s.Limits.ReceivedFields),
		"limits.command_idle": int64(s.Limits.CommandIdle), "limits.data_idle": int64(s.Limits.DataIdle),
		"limits.data_total": int64(s.Limits.DataTotal), "limits.header_size": int64(s.Limits.HeaderSize),
		"limits.line_length": int64(s.Limits.LineLength), "limits.depth": int64(s.Limits.Depth), "limits.parts": int64(s.Limits.Parts),
	}
	for key, value := range positive {
		if value <= 0 {
			d.report("smtp."+key, "must be more than 0")
		}
	}
}

func (d *document) validatePortal(p *Portal) {
	d.listener("portal.listen", p.Listen)
	d.certificate("portal.tls", p.TLS)
	d.portalURL("portal.url", &p.URL)
}

// portalURL checks what Secure Links begin with, and leaves scheme and host.
func (d *document) portalURL(key string, value *string) {
	address, err := url.Parse(*value)
	if err != nil || address.Host == "" || address.Path != "" && address.Path != "/" || address.RawQuery != "" || address.Fragment != "" {
		d.report(key, "must be what Secure Links begin with, such as https://files.example.com")
		return
	}
	*value = address.Scheme + "://" + address.Host
	switch {
	case address.Scheme == "https":
	case address.Scheme != "http":
		d.report(key, "must begin with https://")
	case !crypto.IsLoopback(address.Hostname()):
		d.report(key, "must be https: over http a session could be stolen; http is for loopback only")
	}
}

func (d *document) validateRoutes(c *Config) {
	if len(c.Routes) == 0 {
		d.report("routes", "name at least one route, with address and forward_to")
	}
	seen := map[string]bool{}
	ways := map[string]int{} // by forward_to
	for i := range c.Routes {
		route, key := &c.Routes[i], "routes["+strconv.Itoa(i)+"]"
		d.address(key+".address", route.Address)
		if folded := crypto.CanonicalAddress(route.Address); seen[folded] {
			d.report(key+".address", "%s has a route already", route.Address)
		} else {
			seen[folded] = true
		}
		d.validateMailbox(key, route.ForwardTo, route.NextHop, &route.TLS, route.Auth)
		route.DMARC = cmp.Or(route.DMARC, DMARCNote)
		d.oneOf(key+".dmarc", route.DMARC, DMARCNote, DMARCSeal, DMARCReject)
		route.NoticeLanguage = cmp.Or(route.NoticeLanguage, c.Notice.Language)
		d.oneOf(key+".notice_language", route.NoticeLanguage, LanguageEnglish, LanguageGerman)
		if route.PortalURL == "" {
			route.PortalURL = c.Portal.URL
		} else {
			d.portalURL(key+".portal_url", &route.PortalURL)
		}
		if route.ExpireAfter == 0 {
			route.ExpireAfter = c.ExpireAfter
		}
		d.oneWay(c.Routes, i, ways)
	}
	d.validateMailbox("postmaster", c.Postmaster.ForwardTo, c.Postmaster.NextHop, &c.Postmaster.TLS, c.Postmaster.Auth)
}

// oneWay refuses two ways to one forward_to: a mail to both routes is one delivery, and could keep to one of them only.
func (d *document) oneWay(routes []Route, i int, ways map[string]int) {
	folded := crypto.CanonicalAddress(routes[i].ForwardTo)
	first, known := ways[folded]
	if !known {
		ways[folded] = i
		return
	}
	a, b := routes[first], routes[i]
	if a.NextHop != b.NextHop || a.TLS != b.TLS || a.Auth != b.Auth {
		d.report("routes["+strconv.Itoa(i)+"].forward_to", "%s has the same, and another next_hop, tls or auth; make them equal", a.Address)
	}
}

func (d *document) validateMailbox(key, forwardTo string, hop Hop, tls *string, auth Auth) {
	d.address(key+".forward_to", forwardTo)
	usual := TLSOpportunistic
	if auth != (Auth{}) && !crypto.IsLoopback(hop.Host) {
		usual = TLSVerify // a password is for the server that is named, and for no other
	}
	*tls = cmp.Or(*tls, usual)
	d.oneOf(key+".tls", *tls, TLSOpportunistic, TLSRequire, TLSVerify)
	if *tls == TLSVerify && hop.IsZero() {
		d.report(key+".tls", "verify needs next_hop: the name of an MX comes from DNS, which does not prove it")
	}
	switch {
	case auth == Auth{}:
	case hop.IsZero():
		d.report(key+".auth", "needs next_hop: who logs in must name the server")
	case auth.User == "" || (auth.PasswordFile == "") == (auth.PasswordEnv == ""):
		d.report(key+".auth", "needs user, and one of password_file and password_env")
	}
}

func (d *document) required(key, value, what string) {
	if value == "" {
		d.report(key, "is missing: %s", what)
	}
}

func (d *document) oneOf(key, value string, allowed ...string) {
	for _, word := range allowed {
		if value == word {
			return
		}
	}
	d.report(key, "%q is not possible in this version; write %s", value, strings.Join(allowed, " or "))
}

func (d *document) address(key, value string) {
	parsed, err := mail.ParseAddress(value)
	if err != nil || parsed.Name != "" || parsed.Address != value {
		d.report(key, "%q is not a mail address; write it like support@example.com", value)
	}
}

func (d *document) listener(key, value string) {
	host, port, err := net.SplitHostPort(value)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || host != "" && host != "localhost" && net.ParseIP(host) == nil {
		d.report(key, "%q is not an address to listen on; write it like 127.0.0.1:%d", value, max(number, 2525))
	}
}

func (d *document) certificate(key string, t TLS) {
	for i, pair := range t.Pairs() {
		if pair.Cert == "" || pair.Key == "" {
			d.report(key, "certificate %d needs both cert and key", i+1)
		}
	}
	for _, name := range t.ACME {
		if name == "" || strings.ContainsAny(name, "*/: ") {
			d.report(key+".acme", "%q is not a host name that ACME could give a certificate for", name)
		}
	}
}

// validateMailWorld checks what concerns other mail servers, DNS and the scanner.
func (d *document) validateMailWorld(c *Config) {
	for i, server := range c.DNS {
		if _, err := netip.ParseAddrPort(server); err != nil {
			d.report("dns["+strconv.Itoa(i)+"]", "%q is not a DNS server; write it like 192.0.2.53:53", server)
		}
	}
	if len(c.SMTP.TLS.ACME)+len(c.Portal.TLS.ACME) > 0 {
		d.listener("acme.listen", c.ACME.Listen)
	}
	d.oneOf("scan.on_virus", c.Scan.OnVirus, VirusReject, VirusSeal)
	d.oneOf("scan.scanner_down", c.Scan.ScannerDown, ScannerDefer, ScannerPass)
	if s := c.Scan.Clamd; s != "" && !strings.HasPrefix(s, "unix:/") && !strings.HasPrefix(s, "tcp:") {
		d.report("scan.clamd", "%q is not where clamd listens; write it like unix:/run/clamav/clamd.ctl or tcp:127.0.0.1:3310", s)
	}
	if (c.SRS.Domain == "") != (c.SRS.Keys == "") {
		d.report("srs", "needs both domain and keys; `sealpost srs rotate` makes the file")
	}
	if strings.ContainsAny(c.SRS.Domain, "@ /") {
		d.report("srs.domain", "%q is not a domain", c.SRS.Domain)
	}
	for _, route := range c.Routes {
		if _, domain, _ := strings.Cut(crypto.CanonicalAddress(route.Address), "@"); domain == strings.ToLower(c.SRS.Domain) {
			d.report("srs.domain", "%s has mailboxes of its own; choose a domain for bounces alone", c.SRS.Domain)
		}
	}
	if c.Relay.Workers <= 0 || c.Relay.ConnectionsPerHop <= 0 {
		d.report("relay", "workers and connections_per_hop must be more than 0")
	}
}
