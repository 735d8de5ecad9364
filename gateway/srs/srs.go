// Package srs rewrites envelope senders (Sender Rewriting Scheme), so that SPF passes for what we forward and
// bounces come back by us. It is a package of its own since the front door reads the addresses that the way
// out writes, and since it holds the keys that keep the way back from being an open relay.
//
// Decisions:
//   - SRS0=HHHHHHHH=TT=domain=local@srs.domain: 40 bits of HMAC-SHA256 in base32, the day modulo 1,024 in two
//     base32 digits. Mail servers fold the case of local parts, so nothing that is checked depends on it;
//     the original local part is carried in its own case.
//   - An SRS address of another domain becomes SRS1=HHHHHHHHTT=first.domain==rest@srs.domain: the way back leads
//     to the first forwarder, who checks his own signature. Our day stands in the hash field, which others
//     hand on unread, so that these addresses expire as well.
//   - A local part over 64 octets (RFC 5321 section 4.5.3.1.1) is written nevertheless, as SRS is commonly done; a path
//     of over 254 octets is an error.
//   - A local part that is no dot-string is carried in quotes; both the quoted and the bare spelling are read. UTF-8 is
//     carried as it stands, for a next hop with SMTPUTF8.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// DefaultMaxAge is how long an address can be answered: longer than any mail server tries.
const DefaultMaxAge = 21 * 24 * time.Hour

const (
	day       = 24 * time.Hour
	days      = 1024 // the timestamp counts modulo this
	hashBytes = 5
	hashChars = 8
	dayChars  = 2
	maxPath   = 254
	digits    = "abcdefghijklmnopqrstuvwxyz234567"
)

// What is wrong with an address.
var (
	ErrNotSRS  = errors.New("not an SRS address of this domain")
	ErrExpired = errors.New("the SRS address has expired")
	ErrForged  = errors.New("the SRS address is not one that this gateway made")
)

// Options of a Rewriter.
type Options struct {
	// Domain is what the rewritten addresses end in.
	Domain string
	// Keys are those that are honoured, newest first; the first signs.
	Keys []Key
	// MaxAge is how long an address is honoured, in whole days; 0: DefaultMaxAge.
	MaxAge time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Rewriter turns senders into SRS addresses and back. It may be used by several goroutines at once.
type Rewriter struct {
	domain string
	keys   []Key
	maxAge int // in days
	now    func() time.Time
}

// Format hides the keys from every print verb.
func (Rewriter) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// New checks the options.
func New(o Options) (*Rewriter, error) {
	if o.Domain == "" || strings.ContainsAny(o.Domain, "@ \r\n") {
		return nil, errors.New("srs: a domain is needed")
	}
	if len(o.Keys) == 0 {
		return nil, errors.New("srs: a key is needed")
	}
	for _, k := range o.Keys {
		if k.secret == nil {
			return nil, errors.New("srs: a key is empty")
		}
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.MaxAge < day || o.MaxAge > (days-2)*day {
		return nil, fmt.Errorf("srs: addresses must be honoured for 1 to %d days", days-2)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Rewriter{domain: lower(o.Domain), keys: append([]Key(nil), o.Keys...), maxAge: int(o.MaxAge / day), now: o.Now}, nil
}

// Forward returns the sender to write into the envelope. The null sender and addresses of our own SRS
// domain stay as they are. An error never repeats the sender.
func (r *Rewriter) Forward(sender string) (string, error) {
	if sender == "" {
		return "", nil
	}
	local, domain, err := split(sender)
	if err != nil {
		return "", err
	}
	if lower(domain) == r.domain {
		return sender, nil
	}
	first, rest, foreign := chained(local, domain)
	if foreign && lower(first) == r.domain {
		return r.finish("SRS0" + rest) // it comes back to us by another forwarder: our own address once more
	}
	stamp := encodeDay(r.today())
	if foreign {
		return r.finish("SRS1=" + r.sign(r.keys[0], "srs1", stamp, first, rest) + stamp + "=" + first + "=" + rest)
	}
	return r.finish("SRS0=" + r.sign(r.keys[0], "srs0", stamp, domain, local) + "=" + stamp + "=" + domain + "=" + local)
}

func (r *Rewriter) finish(local string) (string, error) {
	address := quoteLocal(local) + "@" + r.domain
	if len(address) > maxPath {
		return "", errors.New("srs: the sender is too long to be rewritten")
	}
	return address, nil
}

// Reverse returns the address that a bounce to address goes to. ErrNotSRS: the address is none of our SRS
// addresses in form; ErrForged: it is, but no key made it; ErrExpired: a key made it, too long ago.
func (r *Rewriter) Reverse(address string) (string, error) {
	local, domain, err := split(address)
	if err != nil || lower(domain) != r.domain {
		return "", ErrNotSRS
	}
	kind, rest, ok := tag(local)
	if !ok {
		return "", ErrNotSRS
	}
	rest = rest[1:]
	var hash, stamp, target, carried string
	if kind == "srs0" {
		fields := strings.SplitN(rest, "=", 4)
		if len(fields) != 4 {
			return "", ErrForged
		}
		hash, stamp, target, carried = fields[0], fields[1], fields[2], fields[3]
	} else {
		fields := strings.SplitN(rest, "=", 3)
		if len(fields) != 3 || len(fields[0]) != hashChars+dayChars {
			return "", ErrForged
		}
		hash, stamp, target, carried = fields[0][:hashChars], fields[0][hashChars:], fields[1], fields[2]
	}
	if !r.signed(hash, kind, stamp, target, carried) {
		return "", ErrForged
	}
	if !r.fresh(stamp) {
		return "", ErrExpired
	}
	if kind == "srs1" {
		carried = "SRS0" + carried
	}
	return quoteLocal(carried) + "@" + target, nil
}

// chained reports whether the sender is another forwarder's SRS address, and returns the first forwarder's domain and
// what follows SRS0 in the local part there, its separator included.
func chained(local, domain string) (first, rest string, ok bool) {
	kind, rest, ok := tag(local)
	if !ok {
		return "", "", false
	}
	if kind == "srs0" {
		return domain, rest, wellFormed(rest)
	}
	fields := strings.SplitN(rest[1:], "=", 3)
	if len(fields) != 3 || !validDomain(fields[1]) || !wellFormed(fields[2]) {
		return "", "", false
	}
	return fields[1], fields[2], true
}

// wellFormed reports whether what follows SRS0 has its separator and four fields.
func wellFormed(rest string) bool {
	return rest != "" && strings.IndexByte("=-+", rest[0]) >= 0 && strings.Count(rest[1:], "=") >= 3
}

// tag cuts SRS0 or SRS1 from a local part; the rest begins with a separator.
func tag(local string) (kind, rest string, ok bool) {
	if len(local) < 5 || strings.IndexByte("=-+", local[4]) < 0 {
		return "", "", false
	}
	kind = lower(local[:4])
	return kind, local[4:], kind == "srs0" || kind == "srs1"
}

func (r *Rewriter) sign(k Key, kind, stamp, domain, rest string) string {
	mac := hmac.New(sha256.New, k.secret[:])
	// Kind and day have fixed lengths and a domain holds no NUL, so that no two inputs are spelled alike.
	_, _ = mac.Write([]byte(lower(kind + "\x00" + stamp + "\x00" + domain + "\x00" + rest))) // never fails (hash.Hash)
	return base32.StdEncoding.EncodeToString(mac.Sum(nil)[:hashBytes])
}

func (r *Rewriter) signed(hash, kind, stamp, domain, rest string) bool {
	found := false
	for _, k := range r.keys {
		want := lower(r.sign(k, kind, stamp, domain, rest))
		if hmac.Equal([]byte(want), []byte(lower(hash))) {
			found = true
		}
	}
	return found
}

func (r *Rewriter) today() int { return int(r.now().Unix() / int64(day/time.Second) % days) }

// fresh allows a day ahead: another node's clock may be past midnight.
func (r *Rewriter) fresh(stamp string) bool {
	if len(stamp) != dayChars {
		return false
	}
	high, low := strings.IndexByte(digits, lower(stamp)[0]), strings.IndexByte(digits, lower(stamp)[1])
	if high < 0 || low < 0 {
		return false
	}
	age := (r.today() - (high<<5 | low) + days) % days
	return age <= r.maxAge || age == days-1
}

func encodeDay(n int) string { return strings.ToUpper(string([]byte{digits[n>>5&31], digits[n&31]})) }

// lower folds ASCII only: what a mail server does to other letters is not known.
func lower(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}

// split cuts an address at its last @ and takes the local part out of its quotes (RFC 5321 section 4.1.2).
func split(address string) (local, domain string, err error) {
	bad := errors.New("srs: the sender is not an address that can be rewritten")
	at := strings.LastIndexByte(address, '@')
	if at < 1 || !utf8.ValidString(address) || strings.IndexFunc(address, unicode.IsControl) >= 0 {
		return "", "", bad
	}
	local, domain = address[:at], address[at+1:]
	if !validDomain(domain) {
		return "", "", bad
	}
	if local[0] != '"' {
		return local, domain, nil
	}
	if local, err = unquote(local); err != nil {
		return "", "", bad
	}
	return local, domain, nil
}

func validDomain(domain string) bool {
	return domain != "" && !strings.ContainsAny(domain, "= <>@\"\x00")
}

func unquote(quoted string) (string, error) {
	var plain strings.Builder
	inside := quoted[1:]
	for i := 0; i < len(inside); i++ {
		switch c := inside[i]; {
		case c == '"' && i == len(inside)-1 && plain.Len() > 0:
			return plain.String(), nil
		case c == '"':
			return "", errors.New("a quote inside")
		case c == '\\' && i+1 < len(inside):
			i++
			plain.WriteByte(inside[i])
		default:
			plain.WriteByte(c)
		}
	}
	return "", errors.New("no closing quote")
}

// quoteLocal quotes a local part that is no dot-string.
func quoteLocal(local string) string {
	if dotString(local) {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

func dotString(local string) bool {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return false
		}
		for _, c := range atom {
			if c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, c) {
				return false
			}
		}
	}
	return true
}
