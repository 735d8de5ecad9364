package sftest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The limits of Email-to-Case: the mail in bytes, all others in characters. Of the two documented limits of
// the header the lower is taken.
const (
	maxMailSize  = 35 << 20
	maxBody      = 131_072
	maxHeaders   = 32_000
	maxSubject   = 4_000
	maxReceivers = 4_000 // To and Cc, each
	maxFrom      = 3_000

	loopMails  = 15
	loopWindow = 60 * time.Second
)

// threadToken is what the org puts into the subject or the body of its mails.
var threadToken = regexp.MustCompile(`thread::[A-Za-z0-9_-]+::`)

// process does what Email-to-Case does with one accepted mail.
func (d *caseDesk) process(ctx context.Context, m Mail) {
	routes := d.routesOf(m)
	if m.Size > maxMailSize {
		d.bounce(ctx, m, "", TooLarge, routes)
		return
	}
	in, err := readIncoming(m.Raw)
	if err != nil {
		d.bounce(ctx, m, "", Malformed, routes)
		return
	}
	if in.autoResponse {
		d.drop(Dropped{Reason: AutoResponse, MessageID: in.MessageIdentifier}, routes)
		return
	}
	routes = d.admitted(ctx, m, in, routes)
	if len(routes) == 0 {
		return
	}
	if reason := in.tooLong(); reason != "" {
		d.bounce(ctx, m, in.MessageIdentifier, reason, routes)
		return
	}
	if d.loops(in) {
		d.drop(Dropped{Reason: Loop, MessageID: in.MessageIdentifier}, routes)
		return
	}
	d.file(in, routes)
}

func (d *caseDesk) routesOf(m Mail) []RoutingAddress {
	var routes []RoutingAddress
	for _, r := range d.opts.Routing {
		if contains(m.To, r.Address) {
			routes = append(routes, r)
		}
	}
	return routes
}

// admitted are the routing addresses that take the mail. What becomes of the copies to the others is done.
func (d *caseDesk) admitted(ctx context.Context, m Mail, in *incoming, routes []RoutingAddress) []RoutingAddress {
	var taken []RoutingAddress
	for _, r := range routes {
		switch {
		case !r.addressedBy(in):
			d.drop(Dropped{Reason: NotAddressed, MessageID: in.MessageIdentifier}, []RoutingAddress{r})
		case r.accepts(in.FromAddress):
			taken = append(taken, r)
		case r.BounceUnauthorized:
			d.bounce(ctx, m, in.MessageIdentifier, Unauthorized, []RoutingAddress{r})
		default:
			d.drop(Dropped{Reason: Unauthorized, MessageID: in.MessageIdentifier}, []RoutingAddress{r})
		}
	}
	return taken
}

func (r RoutingAddress) addressedBy(in *incoming) bool {
	return r.Public == "" || contains(in.addressed, r.Public) || contains(in.addressed, r.Address)
}

// accepts compares a domain with the whole domain of the sender: a subdomain is another one.
func (r RoutingAddress) accepts(from string) bool {
	if len(r.AcceptFrom) == 0 {
		return true
	}
	_, domain, _ := strings.Cut(from, "@")
	return contains(r.AcceptFrom, from) || domain != "" && contains(r.AcceptFrom, domain)
}

// tooLong names the field that makes the mail bounce, if any. HtmlBody never does.
func (in *incoming) tooLong() Reason {
	for _, f := range []struct {
		text   string
		limit  int
		reason Reason
	}{
		{in.Subject, maxSubject, LongSubject},
		{in.from, maxFrom, LongFrom},
		{in.to, maxReceivers, LongTo},
		{in.cc, maxReceivers, LongCc},
		{in.Headers, maxHeaders, LongHeaders},
		{in.TextBody, maxBody, LongText},
	} {
		if utf8.RuneCountInString(f.text) > f.limit {
			return f.reason
		}
	}
	return ""
}

// loops counts the mails alike in the window, those that made no Case included.
func (d *caseDesk) loops(in *incoming) bool {
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", in.Subject, in.FromAddress, in.TextBody, in.HtmlBody))
	now := d.opts.Clock()
	d.mu.Lock()
	defer d.mu.Unlock()
	recent := slices.DeleteFunc(d.seen[key], func(t time.Time) bool { return now.Sub(t) >= loopWindow })
	d.seen[key] = append(recent, now)
	return len(d.seen[key]) > loopMails
}

// file adds the mail to the Case of its thread, or opens one, once for each routing address. The thread is
// looked up before the first copy is stored: a copy is no answer to another.
func (d *caseDesk) file(in *incoming, routes []RoutingAddress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	number := d.threadOf(in)
	for _, r := range routes {
		in.CaseNumber = number
		if number == "" {
			in.CaseNumber = d.open(in.Subject, r)
		}
		e := in.EmailMessage
		e.ID = d.nextMessageID()
		e.HtmlBody = cut(e.HtmlBody, maxBody)
		e.Created = d.opts.Clock().UTC()
		d.messages = append(d.messages, e)
	}
}

func (d *caseDesk) open(subject string, r RoutingAddress) string {
	c := Case{
		Number:         fmt.Sprintf("%08d", 1001+len(d.cases)),
		Subject:        subject,
		Origin:         r.CaseOrigin,
		RoutingAddress: r.Address,
		Token:          "thread::" + rand.Text() + "::",
		Created:        d.opts.Clock().UTC(),
	}
	if c.Origin == "" {
		c.Origin = "Email"
	}
	d.cases = append(d.cases, c)
	return c.Number
}

// threadOf is the number of the Case that a mail belongs to, or empty.
func (d *caseDesk) threadOf(in *incoming) string {
	for _, text := range []string{in.Subject, in.TextBody, in.HtmlBody} {
		for _, token := range threadToken.FindAllString(text, -1) {
			if i := slices.IndexFunc(d.cases, func(c Case) bool { return c.Token == token }); i >= 0 {
				return d.cases[i].Number
			}
		}
	}
	for _, id := range slices.Concat(in.inReplyTo, in.references) {
		if i := slices.IndexFunc(d.messages, func(e EmailMessage) bool { return e.MessageIdentifier == id }); i >= 0 {
			return d.messages[i].CaseNumber
		}
	}
	if id := in.ClientThreadIdentifier; id != "" {
		if i := slices.IndexFunc(d.messages, func(e EmailMessage) bool { return e.ClientThreadIdentifier == id }); i >= 0 {
			return d.messages[i].CaseNumber
		}
	}
	return ""
}

// drop records the loss of the copies to some routing addresses.
func (d *caseDesk) drop(lost Dropped, routes []RoutingAddress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range routes {
		lost.RoutingAddress = r.Address
		d.dropped = append(d.dropped, lost)
	}
}

// cut keeps the first n characters.
func cut(text string, n int) string {
	count := 0
	for i := range text {
		if count == n {
			return text[:i]
		}
		count++
	}
	return text
}

func contains(list []string, address string) bool {
	return slices.ContainsFunc(list, func(a string) bool { return strings.EqualFold(a, address) })
}
