package sftest

import (
	"bytes"
	"errors"
	"html"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // texts come in any charset
)

// secureLink is https://PORTAL/p/ID#K: 32 hex digits and 43 characters of base64url.
var secureLink = regexp.MustCompile(`https?://[^\s"'<>()]+/p/[0-9a-f]{32}#[A-Za-z0-9_-]{43}`)

// maxText bounds what is searched of one text part.
const maxText = 4 << 20

// Links returns the Secure Links in the text parts of a mail that was kept whole, each once, in the order of
// their appearance. Of a mail that is no well-formed MIME it returns what can be found.
func Links(m Mail) []string {
	entity, err := message.Read(bytes.NewReader(m.Raw))
	if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		return nil
	}
	var links []string
	_ = entity.Walk(func(_ []int, part *message.Entity, err error) error {
		if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			return err
		}
		kind, _, _ := part.Header.ContentType()
		if !strings.HasPrefix(kind, "text/") && kind != "" {
			return nil
		}
		for _, link := range linksIn(part.Body, kind == "text/html") {
			if !slices.Contains(links, link) {
				links = append(links, link)
			}
		}
		return nil
	})
	return links
}

func linksIn(r io.Reader, isHTML bool) []string {
	var text strings.Builder
	if _, err := io.CopyN(&text, r, maxText); err != nil && !errors.Is(err, io.EOF) && text.Len() == 0 {
		return nil
	}
	if isHTML {
		return secureLink.FindAllString(html.UnescapeString(text.String()), -1)
	}
	return secureLink.FindAllString(text.String(), -1)
}
