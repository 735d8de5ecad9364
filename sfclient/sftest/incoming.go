package sftest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
)

// threadIDSize is how much of a Thread-Index names the thread; the rest names the mail in it.
const threadIDSize = 22

// incoming is a mail as Email-to-Case reads it.
type incoming struct {
	EmailMessage
	from, to, cc, bcc string // decoded, with the display names
	inReplyTo         []string
	references        []string
	autoResponse      bool
	addressed         []string // the addresses in To, Cc and Bcc
}

func readIncoming(raw []byte) (*incoming, error) {
	entity, err := message.Read(bytes.NewReader(raw))
	if err != nil && !tolerable(err) {
		return nil, fmt.Errorf("read the mail's header: %w", err)
	}
	h := mail.Header{Header: entity.Header}
	in := &incoming{autoResponse: h.Has("X-SFDC-AutoResponse")}
	in.Incoming = true
	in.Headers = headerBlock(raw)
	in.MessageIdentifier = strings.TrimSpace(h.Get("Message-Id"))
	in.Subject = fieldText(h, "Subject")
	in.from, in.to, in.cc, in.bcc = fieldText(h, "From"), fieldText(h, "To"), fieldText(h, "Cc"), fieldText(h, "Bcc")
	in.FromAddress = strings.Join(addresses(h, "From"), "; ")
	in.ToAddress = strings.Join(addresses(h, "To"), "; ")
	in.CcAddress = strings.Join(addresses(h, "Cc"), "; ")
	for _, field := range []string{"To", "Cc", "Bcc"} {
		in.addressed = append(in.addressed, addresses(h, field)...)
	}
	in.inReplyTo = strings.Fields(h.Get("In-Reply-To"))
	in.references = strings.Fields(h.Get("References"))
	in.ClientThreadIdentifier = threadID(h.Get("Thread-Index"))
	if err := entity.Walk(in.take); err != nil {
		return nil, fmt.Errorf("read the mail's parts: %w", err)
	}
	return in, nil
}

// take reads one part: the first text and the first HTML are the bodies, every other leaf is an attachment.
func (in *incoming) take(_ []int, part *message.Entity, err error) error {
	if err != nil && !tolerable(err) {
		return err
	}
	kind, params, _ := part.Header.ContentType()
	if strings.HasPrefix(kind, "multipart/") {
		return nil
	}
	disposition, _, _ := part.Header.ContentDisposition()
	body := &in.TextBody
	switch {
	case disposition == "attachment" || params["name"] != "":
		body = nil
	case kind == "text/html":
		body = &in.HtmlBody
	case kind != "text/plain" && kind != "":
		body = nil
	}
	if body == nil || *body != "" {
		in.HasAttachment = true
		return nil
	}
	var text strings.Builder
	if _, err := io.CopyN(&text, part.Body, maxText); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read a text: %w", err)
	}
	*body = text.String()
	return nil
}

func tolerable(err error) bool {
	return message.IsUnknownCharset(err) || message.IsUnknownEncoding(err)
}

func headerBlock(raw []byte) string {
	if i := bytes.Index(raw, []byte("\r\n\r\n")); i >= 0 {
		return string(raw[:i+2])
	}
	return string(raw)
}

// fieldText is a field decoded, or as it came if it cannot be decoded.
func fieldText(h mail.Header, field string) string {
	if text, err := h.Text(field); err == nil {
		return text
	}
	return h.Get(field)
}

// addresses are those in a field, each once; none if the field is malformed.
func addresses(h mail.Header, field string) []string {
	list, err := h.AddressList(field)
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range list {
		if !contains(out, a.Address) {
			out = append(out, a.Address)
		}
	}
	return out
}

func threadID(index string) string {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(index), ""))
	if err != nil || len(raw) < threadIDSize {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw[:threadIDSize])
}
