package sftest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// bounceTimeout bounds each step of sending an NDR.
	bounceTimeout = 30 * time.Second
	// maxNDRLine is the longest line in a mail without its end (RFC 5322 section 2.1.1).
	maxNDRLine = 998
)

// bounce tells the envelope sender, and keeps what it was told. A mail without one is dropped instead.
func (d *caseDesk) bounce(ctx context.Context, m Mail, messageID string, reason Reason, routes []RoutingAddress) {
	if m.From == "" {
		d.drop(Dropped{Reason: reason, MessageID: messageID, NullSender: true}, routes)
		return
	}
	b := Bounce{Reason: reason, To: m.From, MessageID: messageID, Raw: d.ndr(m, reason, routes)}
	if d.opts.Bounces != "" {
		b.Err = sendNDR(ctx, d.opts.Bounces, d.hostname, b)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bounces = append(d.bounces, b)
}

// ndr writes a multipart/report (RFC 6522, RFC 3464) that names the routing addresses, as any server would
// that knows a mail by no other.
func (d *caseDesk) ndr(m Mail, reason Reason, routes []RoutingAddress) []byte {
	status, why := "5.6.0", "the mail cannot be processed: "+string(reason)
	switch reason {
	case TooLarge:
		status, why = "5.3.4", "the mail is too large"
	case Unauthorized:
		status, why = "5.7.1", "the sender is not authorized"
	}
	boundary := rand.Text()
	var b bytes.Buffer
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery Subsystem <mailer-daemon@%s>", d.hostname)
	line("To: <%s>", m.From)
	line("Subject: Delivery Status Notification (Failure)")
	line("Date: %s", d.opts.Clock().UTC().Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", rand.Text(), d.hostname)
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=%q", boundary)
	line("\r\n--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n", boundary)
	line("The mail could not be delivered to:\r\n")
	for _, r := range routes {
		line("<%s>: %s %s", r.Address, status, why)
	}
	line("\r\n--%s\r\nContent-Type: message/delivery-status\r\n", boundary)
	line("Reporting-MTA: dns; %s", d.hostname)
	for _, r := range routes {
		line("\r\nFinal-Recipient: rfc822; %s\r\nAction: failed\r\nStatus: %s", r.Address, status)
		line("Diagnostic-Code: smtp; 550 %s <%s>: %s", status, r.Address, why)
	}
	line("\r\n--%s\r\nContent-Type: text/rfc822-headers\r\n", boundary)
	b.WriteString(returnedHeader(m.Raw))
	line("\r\n--%s--", boundary)
	return b.Bytes()
}

// returnedHeader is the mail's header in ASCII, without the lines that are too long for a mail.
func returnedHeader(raw []byte) string {
	var b strings.Builder
	for l := range strings.Lines(headerBlock(raw)) {
		l = strings.TrimRight(l, "\r\n")
		if l == "" || len(l) > maxNDRLine {
			continue
		}
		b.WriteString(strings.Map(func(r rune) rune {
			if r > '~' {
				return '?'
			}
			return r
		}, l) + "\r\n")
	}
	return b.String()
}

// sendNDR sends it from the null sender (RFC 5321 section 4.5.5).
func sendNDR(ctx context.Context, addr, hostname string, b Bounce) (err error) {
	dialer := net.Dialer{Timeout: bounceTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("connect to send an NDR: %w", err)
	}
	detach := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer detach()
	c := smtp.NewClient(conn)
	defer func() { _ = c.Close() }()
	c.CommandTimeout, c.SubmissionTimeout = bounceTimeout, bounceTimeout
	if err := c.Hello(hostname); err != nil {
		return fmt.Errorf("greet to send an NDR: %w", err)
	}
	if err := c.SendMail("", []string{b.To}, bytes.NewReader(b.Raw)); err != nil {
		return fmt.Errorf("send an NDR: %w", err)
	}
	if err := c.Quit(); err != nil {
		return fmt.Errorf("end the sending of an NDR: %w", err)
	}
	return nil
}
