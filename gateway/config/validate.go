package config

import (
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"sealpost/crypto"
)

func (c *Config) resolvePaths(base string) {
	paths := []*string{&c.Data, &c.Keyring, &c.SMTP.TLS.Cert, &c.SMTP.TLS.Key, &c.Portal.TLS.Cert, &c.Portal.TLS.Key}
	for i := range c.RecoveryKeys {
		paths = append(paths, &c.RecoveryKeys[i])
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(base, *path)
		}
	}
}

// validate reports everything that the file alone shows to be wrong, and fills in what follows from
// other keys.
func (d *document) validate(c *Config) {
	d.required("hostname", c.Hostname, "the name that other mail servers know us by, such as mx.example.com")
	d.required("data", c.Data, "the directory for the database, the sealed files and the spool")
	d.required("keyring", c.Keyring, "the file that `sealpost init` made; keep it out of data's backups")
	d.oneOf("database", c.Database, DatabaseSQLite)
	d.oneOf("blobs", c.Blobs, BlobsDir)
	d.oneOf("notice.filenames", c.Notice.Filenames, FilenamesShow, FilenamesHide)
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
	d.oneOf("smtp.bare_newlines", s.BareNewlines, NewlinesReject)
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
	address, err := url.Parse(p.URL)
	if err != nil || address.Host == "" || address.Path != "" && address.Path != "/" || address.RawQuery != "" || address.Fragment != "" {
		d.report("portal.url", "must be what Secure Links begin with, such as https://files.example.com")
		return
	}
	p.URL = address.Scheme + "://" + address.Host
	switch {
	case address.Scheme == "https":
	case address.Scheme != "http":
		d.report("portal.url", "must begin with https://")
	case !crypto.IsLoopback(address.Hostname()):
		d.report("portal.url", "must be https: over http a session could be stolen; http is for loopback only")
	}
}

func (d *document) validateRoutes(c *Config) {
	if len(c.Routes) == 0 {
		d.report("routes", "name at least one route, with address, forward_to and next_hop")
	}
	seen := map[string]bool{}
	for i := range c.Routes {
		route, key := &c.Routes[i], "routes["+strconv.Itoa(i)+"]"
		d.address(key+".address", route.Address)
		if folded := crypto.CanonicalAddress(route.Address); seen[folded] {
			d.report(key+".address", "%s has a route already", route.Address)
		} else {
			seen[folded] = true
		}
		d.validateMailbox(key, route.ForwardTo, route.NextHop, &route.TLS)
		if route.ExpireAfter == 0 {
			route.ExpireAfter = c.ExpireAfter
		}
	}
	d.validateMailbox("postmaster", c.Postmaster.ForwardTo, c.Postmaster.NextHop, &c.Postmaster.TLS)
}

func (d *document) validateMailbox(key, forwardTo string, hop Hop, tls *string) {
	d.address(key+".forward_to", forwardTo)
	if hop.IsZero() {
		d.report(key+".next_hop", "must name the server that takes its mail, such as smtp://mail.example.com:25")
	}
	if *tls == "" {
		*tls = TLSOpportunistic
	}
	d.oneOf(key+".tls", *tls, TLSOpportunistic, TLSRequire)
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
	if t.Enabled() && (t.Cert == "" || t.Key == "") {
		d.report(key, "needs both cert and key")
	}
}
