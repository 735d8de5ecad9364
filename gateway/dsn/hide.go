package dsn

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode"

	"github.com/emersion/go-message/charset"

	"sealpost/gateway"
)

// needles are what no outsider may learn, and where each stands for a public address.
type needles struct {
	*gateway.Scrubber
	decoder  mime.WordDecoder
	hostname string
	public   []string
}

func newNeedles(hide map[string]string, hostname string) needles {
	n := needles{decoder: mime.WordDecoder{CharsetReader: charset.Reader}, hostname: hostname}
	all := map[string]string{hostname: hostname}
	for secret, public := range hide {
		all[secret] = mailbox(public, hostname)
		n.public = append(n.public, all[secret])
	}
	n.Scrubber = gateway.NewScrubber(all)
	return n
}

// mailbox completes an address without a domain, as that of postmaster may be (RFC 5321 section 4.5.1).
func mailbox(address, hostname string) string {
	if address == "" || strings.Contains(address, "@") {
		return address
	}
	return address + "@" + hostname
}

// squeeze is the form in which addresses are compared: lower case, without blanks and what cannot be seen.
func squeeze(s string) string {
	return strings.Map(func(c rune) rune {
		if c = printable(c); c == ' ' || c == -1 {
			return -1
		}
		return unicode.ToLower(c)
	}, s)
}

func printable(c rune) rune {
	switch {
	case unicode.IsSpace(c):
		return ' '
	case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
		return -1
	}
	return c
}

// in reports whether text holds something to hide.
func (n needles) in(text string) bool {
	_, found := n.Find(text)
	return found
}

// inField is Find for the value of a header field, encoded words (RFC 2047) and continued parameters (RFC 2231) included. What
// cannot be read counts as found.
func (n needles) inField(value string) (public string, found bool) {
	if public, found = n.Find(value); found {
		return public, found
	}
	if strings.Contains(value, "*") {
		if _, parameters, err := mime.ParseMediaType(value); err == nil {
			for _, parameter := range parameters {
				if public, found := n.Find(parameter); found {
					return public, found
				}
			}
		}
	}
	if !strings.Contains(value, "=?") {
		return "", false
	}
	decoded, err := n.decoder.DecodeHeader(value)
	public, found = n.Find(decoded)
	return public, found || err != nil
}

// inStream is Find for a stream, in bounded memory.
func (n needles) inStream(r io.Reader) (public string, found bool, err error) {
	buffer := make([]byte, gateway.MaxSpelling+32<<10)
	kept := 0
	for {
		got, err := io.ReadFull(r, buffer[kept:])
		if public, found := n.Find(string(buffer[:kept+got])); found {
			return public, true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", false, nil
		}
		if err != nil {
			return "", false, fmt.Errorf("search the mail: %w", err)
		}
		kept = copy(buffer, buffer[len(buffer)-gateway.MaxSpelling:])
	}
}

// publicOf finds the public address that an address is or stands behind.
func (n needles) publicOf(address string) (string, bool) {
	shown := squeeze(n.Scrub(address))
	for _, public := range n.public {
		if shown != "" && shown == squeeze(public) {
			return public, true
		}
	}
	return "", false
}

// fallback is the recipient of a mail that could have gone to several.
func (n needles) fallback() string {
	for _, public := range n.public {
		if public != n.public[0] {
			return "undisclosed@" + n.hostname
		}
	}
	if len(n.public) == 0 {
		return "undisclosed@" + n.hostname
	}
	return n.public[0]
}
