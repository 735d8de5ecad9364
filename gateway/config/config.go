// Package config reads Sealpost's one YAML file.
//
// Parse checks everything that the file alone can tell and reports all of it at once, each with file,
// line and the way to mend it; unknown keys are refused with the nearest known one. Whether keys can be
// read and ports can be had is for `sealpost check` and `serve`. Relative paths are relative to the file.
package config

import (
	"net/netip"
	"time"
)

// Config is the whole file, with defaults filled in.
type Config struct {
	Hostname     string     `yaml:"hostname"`
	Data         string     `yaml:"data"`
	Keyring      string     `yaml:"keyring"`
	Database     string     `yaml:"database"` // DatabaseSQLite, or the URL of a PostgreSQL database
	Blobs        string     `yaml:"blobs"`    // BlobsDir, or an s3:// location
	ExpireAfter  Duration   `yaml:"expire_after"`
	ReplayWindow Duration   `yaml:"replay_window"`
	Postmaster   Postmaster `yaml:"postmaster"`
	SMTP         SMTP       `yaml:"smtp"`
	Portal       Portal     `yaml:"portal"`
	ACME         ACME       `yaml:"acme"`
	DNS          []string   `yaml:"dns"`

	Authentication Authentication `yaml:"authentication"`
	Scan           Scan           `yaml:"scan"`
	SRS            SRS            `yaml:"srs"`
	Notices        Notices        `yaml:"notices"`
	Alerts         Alerts         `yaml:"alerts"`
	Relay          Relay          `yaml:"relay"`
	Policy         Policy         `yaml:"policy"`
	Notice         Notice         `yaml:"notice"`
	Routes         []Route        `yaml:"routes"`
	RecoveryKeys   []string       `yaml:"recovery_keys"`
	Metrics        Metrics        `yaml:"metrics"`
	Log            Log            `yaml:"log"`
}

// Postmaster is where mail to the postmaster goes (RFC 5321 section 4.5.1).
type Postmaster struct {
	ForwardTo string `yaml:"forward_to"`
	NextHop   Hop    `yaml:"next_hop"`
	TLS       string `yaml:"tls"`
	Auth      Auth   `yaml:"auth"`
}

// Auth is how we log in at a next hop. The password is the content of a file, or of an environment variable.
type Auth struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
	PasswordEnv  string `yaml:"password_env"`
}

// SMTP is the SMTP front.
type SMTP struct {
	Listen             []string       `yaml:"listen"`
	ListenTLS          []string       `yaml:"listen_tls"`
	MaxMessageSize     Size           `yaml:"max_message_size"`
	AllowFrom          []netip.Prefix `yaml:"allow_from"`
	TrustedRelays      []netip.Prefix `yaml:"trusted_relays"`
	ProxyFrom          []netip.Prefix `yaml:"proxy_from"`
	BareNewlines       string         `yaml:"bare_newlines"`
	RecipientDelimiter string         `yaml:"recipient_delimiter"`
	Limits             Limits         `yaml:"limits"`
	TLS                TLS            `yaml:"tls"`
}

// Limits bound what one client and one mail may ask of us. Mails beyond the last four are sealed whole.
type Limits struct {
	Recipients           int      `yaml:"recipients"`
	Connections          int      `yaml:"connections"`
	ConnectionsPerClient int      `yaml:"connections_per_client"`
	MailsPerClient       int      `yaml:"mails_per_client"`
	ReceivedFields       int      `yaml:"received_fields"`
	CommandIdle          Duration `yaml:"command_idle"`
	DataIdle             Duration `yaml:"data_idle"`
	DataTotal            Duration `yaml:"data_total"`
	HeaderSize           Size     `yaml:"header_size"`
	LineLength           Size     `yaml:"line_length"`
	Depth                int      `yaml:"depth"`
	Parts                int      `yaml:"parts"`
}

// TLS says which certificates a listener has: one pair, several, or those that ACME gets for some names.
type TLS struct {
	Cert         string   `yaml:"cert"`
	Key          string   `yaml:"key"`
	Certificates []Pair   `yaml:"certificates"`
	ACME         []string `yaml:"acme"`
}

// Pair names a certificate chain and its key, both PEM.
type Pair struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Enabled reports whether there is a certificate.
func (t TLS) Enabled() bool { return len(t.Pairs()) > 0 || len(t.ACME) > 0 }

// Pairs are all certificates that come from files.
func (t TLS) Pairs() []Pair {
	if t.Cert == "" && t.Key == "" {
		return t.Certificates
	}
	return append([]Pair{{t.Cert, t.Key}}, t.Certificates...)
}

// ACME is where certificates are got by RFC 8555.
type ACME struct {
	Directory string `yaml:"directory"`
	Email     string `yaml:"email"`
	Roots     string `yaml:"roots"`
	Listen    string `yaml:"listen"`
}

// Authentication is about who a mail's sender is: SPF, DKIM, DMARC.
type Authentication struct {
	Enabled    bool     `yaml:"enabled"`
	TrustedIDs []string `yaml:"trusted_ids"`
}

// Scan is the virus scanner.
type Scan struct {
	Clamd       string `yaml:"clamd"`
	OnVirus     string `yaml:"on_virus"`
	ScannerDown string `yaml:"scanner_down"`
}

// SRS rewrites return paths, so that bounces come back by us.
type SRS struct {
	Domain        string `yaml:"domain"`
	Keys          string `yaml:"keys"`
	BounceNextHop Hop    `yaml:"bounce_next_hop"`
}

// Notices are what the sender of a mail is told.
type Notices struct {
	Enabled    bool     `yaml:"enabled"`
	DelayAfter Duration `yaml:"delay_after"`
}

// Alerts are what the postmaster is told.
type Alerts struct {
	Mail     bool     `yaml:"mail"`
	QueueAge Duration `yaml:"queue_age"`
}

// Relay is the way out.
type Relay struct {
	Workers           int `yaml:"workers"`
	ConnectionsPerHop int `yaml:"connections_per_hop"`
	// Roots is a file of certificates that are trusted besides the system's.
	Roots string `yaml:"roots"`
}

// Portal is the agents' side.
type Portal struct {
	Listen         string         `yaml:"listen"`
	URL            string         `yaml:"url"`
	TLS            TLS            `yaml:"tls"`
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// DirectDownloads lets agents' browsers fetch ciphertext from S3 itself.
	DirectDownloads bool `yaml:"direct_downloads"`
}

// Notice is the text that takes the place of the files.
type Notice struct {
	Filenames string `yaml:"filenames"`
	Language  string `yaml:"language"`
	Place     string `yaml:"place"`
	// Text and HTML are files with templates of the admin's own, both or none.
	Text string `yaml:"text"`
	HTML string `yaml:"html"`
}

// Route leads from a public address to a mailbox behind us.
type Route struct {
	Address     string   `yaml:"address"`
	ForwardTo   string   `yaml:"forward_to"`
	NextHop     Hop      `yaml:"next_hop"`
	TLS         string   `yaml:"tls"`
	Auth        Auth     `yaml:"auth"`
	DMARC       string   `yaml:"dmarc"`
	PortalURL   string   `yaml:"portal_url"`
	ExpireAfter Duration `yaml:"expire_after"`
	// NoticeLanguage is what the notices of this route's mails are written in.
	NoticeLanguage string `yaml:"notice_language"`
}

// Metrics is where Prometheus may scrape; nowhere when empty.
type Metrics struct {
	Listen string `yaml:"listen"`
}

// Log is how the log is written, on standard error.
type Log struct {
	Format string `yaml:"format"`
	Level  string `yaml:"level"`
}

// The values of the keys that are words.
const (
	TLSOpportunistic  = "opportunistic"
	TLSRequire        = "require"
	TLSVerify         = "verify"
	DMARCNote         = "note"
	DMARCSeal         = "seal"
	DMARCReject       = "reject"
	VirusReject       = "reject"
	VirusSeal         = "seal"
	ScannerDefer      = "defer"
	ScannerPass       = "pass"
	FilenamesShow     = "show"
	FilenamesHide     = "hide"
	LanguageEnglish   = "en"
	LanguageGerman    = "de"
	PlaceAuto         = "auto"
	PlaceTop          = "top"
	PlaceBottom       = "bottom"
	NewlinesReject    = "reject"
	NewlinesNormalize = "normalize"
	DatabaseSQLite    = "sqlite"
	BlobsDir          = "dir"
	PostmasterAddress = "postmaster"
)

// defaults is what holds where the file is silent.
func defaults() Config {
	const day = 24 * time.Hour
	return Config{
		Database:    DatabaseSQLite,
		Blobs:       BlobsDir,
		ExpireAfter: Duration(365 * day),
		SMTP: SMTP{
			Listen:         []string{":25"},
			MaxMessageSize: 150_000_000,
			BareNewlines:   NewlinesReject,

			RecipientDelimiter: "+",
			Limits: Limits{
				Recipients: 100, Connections: 1000, ConnectionsPerClient: 50, ReceivedFields: 100,
				CommandIdle: Duration(5 * time.Minute), DataIdle: Duration(3 * time.Minute), DataTotal: Duration(time.Hour),
				HeaderSize: 128 << 10, LineLength: 1 << 20, Depth: 32, Parts: 1000,
			},
		},
		Portal: Portal{Listen: "127.0.0.1:8080"},
		ACME:   ACME{Listen: ":80"},

		Authentication: Authentication{Enabled: true},
		Scan:           Scan{OnVirus: VirusReject, ScannerDown: ScannerDefer},
		Notices:        Notices{Enabled: true, DelayAfter: Duration(4 * time.Hour)},
		Alerts:         Alerts{Mail: true, QueueAge: Duration(time.Hour)},
		Relay:          Relay{Workers: 100, ConnectionsPerHop: 20},
		Policy:         defaultPolicy(),
		Notice:         Notice{Filenames: FilenamesShow, Language: LanguageEnglish, Place: PlaceAuto},
		Log:            Log{Format: "text", Level: "info"},
	}
}
