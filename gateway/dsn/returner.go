package dsn

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sealpost/gateway"
)

// Returner hands bounces from servers behind us back to those who wrote the mails. Its values may be copied and used
// by several goroutines at once.
type Returner struct {
	// Hostname is our name in what we write.
	Hostname string
	// Hide is which addresses no outsider may learn, and the public address that stands for each.
	Hide map[string]string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Return writes the mail for to in w. A delivery report is written anew; any other mail is written as it is below trace, when
// it names nothing that is to be hidden. Else a report of ours takes its place if it is a bounce, or nothing is written and
// gateway.ErrNothingToTell returned if it is none. What is ours has no trace: it begins here. Other errors are those of w, of mail
// and of ctx.
func (r Returner) Return(ctx context.Context, w io.Writer, to string, mail io.ReaderAt, size int64, trace []byte) error {
	n := newNeedles(r.Hide, r.Hostname)
	found, err := read(ctx, io.NewSectionReader(mail, 0, min(size, maxSearched)), n)
	if err != nil {
		return err
	}
	if found.report {
		return r.write(w, to, n, found)
	}
	if size > maxSearched || found.opaque || found.leaks {
		return r.instead(w, to, n, found)
	}
	public, leaks, err := n.inStream(&faults{Reader: io.NewSectionReader(mail, 0, size), stop: ctx.Err})
	if err != nil {
		return err
	}
	if leaks {
		found.public = public
		return r.instead(w, to, n, found)
	}
	if _, err := w.Write(trace); err != nil {
		return fmt.Errorf("return the mail: %w", err)
	}
	if _, err := io.Copy(w, io.NewSectionReader(mail, 0, size)); err != nil {
		return fmt.Errorf("return the mail: %w", err)
	}
	return nil
}

// instead is for a mail that cannot be passed on.
func (r Returner) instead(w io.Writer, to string, n needles, found bounce) error {
	if found.chatter() {
		return gateway.ErrNothingToTell
	}
	return r.generic(w, to, n, found)
}

func (r Returner) base(to string) composed {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	return composed{id: gateway.NewPackageID().String(), hostname: r.Hostname, to: to, date: now(), subject: "Your mail was not delivered"}
}

// generic says no more than that a mail came back.
func (r Returner) generic(w io.Writer, to string, n needles, found bounce) error {
	c := r.base(to)
	status := validStatus(found.status, "5.0.0")
	c.text = "This is the mail server " + oneLine(r.Hostname) + ".\r\n\r\n" +
		"The mail server behind us returned your mail. Most likely it was not delivered.\r\nIts message is not shown. The status that it gave is " + status + ".\r\n"
	c.recipients = []recipientStatus{{final: cmp.Or(found.public, n.fallback()), action: "failed", status: status}}
	return c.write(w)
}

// write writes the report anew. Should the result hold what is to be hidden after all, then the generic one.
func (r Returner) write(w io.Writer, to string, n needles, found bounce) error {
	c := r.base(to)
	c.envelopeID, c.arrived, c.header = found.envelopeID, found.arrived, found.header
	c.text = "This is the mail server " + oneLine(r.Hostname) + ".\r\n\r\n"
	failed := false
	for _, block := range found.recipients {
		status := n.recipient(block)
		failed = failed || status.action == "failed"
		c.recipients = append(c.recipients, status)
		c.text += sentence(status)
	}
	if len(c.recipients) == 0 {
		return r.generic(w, to, n, found)
	}
	if !failed {
		c.subject = "Delivery report for your mail"
	}
	var out bytes.Buffer // bounded: at most 50 recipients and 32 KiB of header
	c.to = "reader@" + r.Hostname
	if err := c.write(&out); err != nil {
		return err
	}
	if n.in(out.String()) || n.in(c.text) || n.in(string(c.header)) {
		return r.generic(w, to, n, found)
	}
	c.to = to
	return c.write(w)
}

func sentence(s recipientStatus) string {
	what := map[string]string{
		"failed": "was not delivered", "delayed": "is delayed; the mail server behind us still tries", "delivered": "was delivered",
		"relayed": "was handed on", "expanded": "was delivered to a list",
	}[s.action]
	text := "Your mail to " + oneLine(s.final) + " " + what + " (" + s.status + ").\r\n"
	if _, said, ok := strings.Cut(s.diagnostic, ";"); ok {
		text += "The mail server behind us said:\r\n    " + oneLine(said) + "\r\n"
	}
	return text + "\r\n"
}

// recipient turns one block of a report that came back into one of ours.
func (n needles) recipient(block map[string]string) recipientStatus {
	s := recipientStatus{action: strings.ToLower(strings.TrimSpace(block["action"]))}
	if !slices.Contains([]string{"failed", "delayed", "delivered", "relayed", "expanded"}, s.action) {
		s.action = "failed"
	}
	otherwise := map[string]string{"failed": "5.0.0", "delayed": "4.0.0"}[s.action]
	if otherwise == "" {
		otherwise = "2.0.0"
	}
	code, _, _ := strings.Cut(strings.TrimSpace(block["status"]), " ")
	s.status = validStatus(code, otherwise)
	kind, said, ok := strings.Cut(block["diagnostic-code"], ";")
	if said = n.Scrub(oneLine(said)); ok && said != "" {
		if kind = strings.ToLower(strings.TrimSpace(kind)); kind != "smtp" {
			kind = "x-unknown"
		}
		s.diagnostic = kind + "; " + said
	}
	original := addressOf(block["original-recipient"])
	public, known := n.publicOf(original)
	if _, secret := n.inField(block["original-recipient"]); !secret && original != "" {
		s.original = block["original-recipient"] // it is the sender's own (RFC 3461 section 6.3)
	} else if known {
		s.original = "rfc822;" + public
	}
	if other, ok := n.publicOf(addressOf(block["final-recipient"])); ok {
		public, known = other, true
	}
	s.final = public
	if !known {
		s.final = n.fallback()
	}
	return s
}

// addressOf takes the address out of "rfc822; address", in angle brackets or not.
func addressOf(value string) string {
	_, address, ok := strings.Cut(value, ";")
	if !ok {
		address = value
	}
	return strings.Trim(strings.TrimSpace(address), "<>")
}
