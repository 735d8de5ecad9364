package intake

import (
	"fmt"
	"strings"
	"time"

	"sealpost/gateway/rewrite"
)

// trace returns the header fields that are put above the mail: Received (RFC 5321 section 4.4), with the
// public address only, what is known of the sender (RFC 8601), and a Message-ID where the sender gave none, since without one no Case can be
// confirmed.
func (t *transaction) trace(message *rewrite.Message) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n\tby %s with %s id %s", safeName(t.envelope.Hello),
		addressLiteral(t.envelope.Client.Unmap().String(), t.envelope.Client.Unmap().Is6()), t.options.Hostname, t.envelope.Protocol, t.id)
	if len(t.envelope.Recipients) == 1 && !t.returns() && ascii(t.envelope.Recipients[0].Route.Address) {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.envelope.Recipients[0].Route.Address)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", t.envelope.Received.UTC().Format(time.RFC1123Z))
	b.Write(t.results)
	if !message.HasMessageID() && !t.returns() {
		fmt.Fprintf(&b, "Message-ID: %s\r\n", t.messageID(message))
	}
	return []byte(b.String())
}

// messageID is the mail's own, empty where its field is, or the one that we give it.
func (t *transaction) messageID(message *rewrite.Message) string {
	if message.HasMessageID() {
		return message.MessageID()
	}
	return "<" + t.id.String() + "@" + t.options.Hostname + ">"
}

// addressLiteral writes an address as RFC 5321 section 4.1.3 does.
func addressLiteral(address string, v6 bool) string {
	if v6 {
		return "[IPv6:" + address + "]"
	}
	return "[" + address + "]"
}

// safeName keeps a client from writing header fields or comments by its EHLO argument.
func safeName(hello string) string {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"
	if hello == "" || len(hello) > 255 || strings.Trim(hello, allowed) != "" {
		return "unknown"
	}
	return hello
}
