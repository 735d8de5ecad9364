package crypto

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
)

// Link is a Secure Link: where a package is opened, and the keycode that opens it.
type Link struct {
	// Portal is what links begin with: a scheme, a host and perhaps a path, without a slash at the end.
	Portal  string
	ID      ID
	Keycode Keycode
}

// Reveal returns PORTAL/p/ID#K.
func (l Link) Reveal() string { return l.place() + l.Keycode.Reveal() }

// String returns the link without its keycode.
func (l Link) String() string { return l.place() + redacted }

// Format writes the link without its keycode for every verb.
func (l Link) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(l.String())) }

// LogValue returns the link without its keycode.
func (l Link) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalText returns the link without its keycode.
func (l Link) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l Link) place() string { return l.Portal + "/p/" + l.ID.String() + "#" }

// ParseLink reads a Secure Link. White space around it is ignored, all else must be as Reveal writes it;
// plain http is accepted for a loopback host only. No error repeats any of the link.
func ParseLink(s string) (Link, error) {
	address, fragment, found := strings.Cut(strings.TrimSpace(s), "#")
	portal, name, ok := cutLast(address, "/p/")
	if !ok {
		return Link{}, errors.New("this is not a Secure Link: it has no /p/ before the package's ID")
	}
	id, err := ParseID(name)
	if err != nil {
		return Link{}, fmt.Errorf("this is not a Secure Link: %w", err)
	}
	if err := checkPortal(portal); err != nil {
		return Link{}, err
	}
	if !found || fragment == "" {
		return Link{}, errors.New("the link is incomplete: the part after # is missing; copy the whole link, up to its last character")
	}
	k, err := ParseKeycode(fragment)
	if err != nil {
		return Link{}, fmt.Errorf("the link is incomplete or damaged: %w after #", err)
	}
	return Link{Portal: portal, ID: id, Keycode: k}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func checkPortal(portal string) error {
	u, err := url.Parse(portal)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Opaque != "" {
		return errors.New("this is not a Secure Link: it must begin with https:// and a host") // err would repeat the link
	}
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && IsLoopback(u.Hostname()):
		return nil
	}
	return errors.New("this is not a Secure Link: it must begin with https://")
}

// IsLoopback reports whether host names this machine only.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
