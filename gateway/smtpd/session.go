package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/gateway"
)

// session is the state of one dialogue between its EHLO and its end. Only the goroutine that serves the
// dialogue uses it.
type session struct {
	server   *Server
	conn     *conn
	smtp     *smtp.Conn
	begun    bool // MAIL was accepted
	envelope gateway.Envelope
	refused  map[gateway.Code]int // recipients of this transaction
}

var _ smtp.Session = (*session)(nil)

func (s *Server) newSession(sc *smtp.Conn) (smtp.Session, error) {
	c, ok := sc.Conn().(*conn)
	if !ok {
		return nil, replyTo(errors.New("a connection that is not ours"))
	}
	return &session{server: s, conn: c, smtp: sc}, nil
}

// Mail begins a transaction.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.begun {
		return reply(503, 5, 5, 1, "nested MAIL command")
	}
	trusted := contains(s.server.opts.TrustedRelays, s.conn.client)
	if !trusted && !s.server.rates.allow(clientKey(s.conn.client)) {
		return s.tooFast()
	}
	if from != "" {
		var err error
		if from, err = mailbox(from, opts.UTF8, smtp.EnhancedCode{5, 1, 7}); err != nil {
			return err
		}
	}
	envelopeID, err := envelopeID(opts.EnvelopeID)
	if err != nil {
		return err
	}
	s.begun = true
	s.envelope = gateway.Envelope{
		MailFrom:     from,
		Client:       s.conn.client,
		TrustedRelay: trusted,
		Hello:        helloName(s.smtp.Hostname()),
		Protocol:     protocol(s.conn.esmtp, s.conn.tls != "", opts.UTF8),
		TLS:          s.conn.tls,
		UTF8:         opts.UTF8,
		Return:       string(opts.Return),
		EnvelopeID:   envelopeID,
	}
	return nil
}

// tooFast refuses a client that has sent too many mails in the last minute.
func (s *session) tooFast() error {
	s.server.metrics.refused.WithLabelValues(string(gateway.CodeBusy)).Inc()
	s.server.opts.Logger.Info("too many mails from one client", "code", string(gateway.CodeBusy), "client", s.conn.client)
	return reply(451, 4, 7, 1, "too many mails from your address; try again later")
}

// protocol is the "with" keyword of a Received field (RFC 3848, RFC 6531 section 4.3).
func protocol(esmtp, tls, utf8 bool) string {
	name := "ESMTP"
	switch {
	case utf8:
		name = "UTF8SMTP"
	case !esmtp:
		return "SMTP"
	}
	if tls {
		name += "S"
	}
	return name
}

// Rcpt adds a recipient, if there is a route for it.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	if s.conn.bare {
		to = postmaster
	} else {
		var err error
		if to, err = mailbox(to, s.envelope.UTF8, smtp.EnhancedCode{5, 1, 3}); err != nil {
			return err
		}
	}
	dsn, err := dsnRequest(opts)
	if err != nil {
		return err
	}
	route, err := s.server.opts.Router.Route(s.envelope.MailFrom, to)
	if err != nil {
		return s.refuseRecipient(replyFor(codeOf(err)), codeOf(err))
	}
	if given := s.envelope.Recipients; len(given) > 0 && !given[0].Route.Shares(route) {
		return s.refuseRecipient(reply(452, 4, 5, 3, "this recipient needs a transaction of its own"), gateway.CodeTooManyRecipients)
	}
	s.envelope.Recipients = append(s.envelope.Recipients, gateway.Recipient{Address: to, Route: route, DSN: dsn})
	return nil
}

// refuseRecipient keeps the books of a recipient that was refused with that answer.
func (s *session) refuseRecipient(answer error, code gateway.Code) error {
	if s.refused == nil {
		s.refused = make(map[gateway.Code]int)
	}
	s.refused[code]++
	s.server.metrics.refused.WithLabelValues(string(code)).Inc()
	return answer
}

// Reset ends the transaction.
func (s *session) Reset() {
	for code, n := range s.refused {
		s.server.opts.Logger.Info("recipients refused", "code", string(code), "count", n, "client", s.conn.client)
	}
	s.begun, s.envelope, s.refused = false, gateway.Envelope{}, nil
}

// Logout ends the session.
func (s *session) Logout() error {
	s.Reset()
	return nil
}

// Data receives and hands over one mail. The reader that go-smtp offers is left with nothing but the end
// of the text: see receive.
func (s *session) Data(io.Reader) error {
	s.conn.begin()
	defer s.conn.end()
	envelope := s.envelope
	envelope.Received = time.Now()
	mail, err := s.server.opts.NewSpooled()
	if err != nil {
		mail, err = nil, fmt.Errorf("open the spool: %w", err)
	} else {
		defer s.forget(mail)
	}
	text, err := s.receive(mail, err)
	if err != nil {
		s.remember(envelope, text, err)
		return s.refuse(envelope, text.size, err)
	}
	if text.altered { // a field that the relay did not see as one, and so did not remove, could speak in its name
		envelope.TrustedRelay = false
	}
	ctx, cancel := context.WithTimeout(s.server.intake(), s.server.opts.Limits.Intake)
	defer cancel()
	s.conn.settle(true) // who sends a second mail does not wait for word of the first
	id, err := s.server.opts.Handler.Accept(ctx, envelope, mail)
	if err != nil {
		return s.refuse(envelope, text.size, err)
	}
	s.conn.await(id)
	if text.mended {
		s.server.metrics.normalized.Inc()
	}
	s.accepted(envelope, text.size)
	return reply(250, 2, 0, 0, acceptedText+printable(id))
}

// receive reads the text of a mail into the spool, and returns what it saw of it. failed, if not nil, is why it cannot
// be kept; text that follows DATA must be read all the same.
func (s *session) receive(spool io.Writer, failed error) (b *body, err error) {
	out := s.server.buffers.get()
	defer func() {
		s.server.buffers.put(out)
		b.out = nil
	}()
	b = &body{
		spool: spool, out: out[:0], maxSize: s.server.opts.MaxMessageSize, err: failed, mend: s.server.opts.NormalizeNewlines,
		loops: receivedCounter{limit: s.server.opts.Limits.ReceivedFields},
	}
	if s.conn.verb == "BDAT" {
		err = s.receiveChunks(b)
	} else {
		err = s.receiveText(b)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return b, errTimedOut
	case err != nil:
		return b, errAborted
	}
	if err := b.finish(); err != nil {
		return b, err
	}
	if err := s.conn.flush(); err != nil { // the client gets its earlier replies before the long wait
		return b, errAborted
	}
	return b, nil
}

// receiveText reads what follows DATA to the end of the text.
func (s *session) receiveText(b *body) error {
	b.dots = true
	for done := false; !done; {
		text, err := s.conn.text()
		if err != nil {
			return err
		}
		var n int
		n, done = b.feed(text)
		s.conn.consume(n)
	}
	s.conn.inject = endOfData
	return nil
}

// receiveChunks reads BDAT chunks to the last, or to the end of the first that makes the mail fail.
func (s *session) receiveChunks(b *body) error {
	s.conn.inject = endOfData
	for {
		for s.conn.chunk > 0 {
			text, err := s.conn.chunkText()
			if err != nil {
				return err
			}
			b.feed(text)
		}
		if s.conn.last || b.failed() {
			return nil
		}
		s.conn.answer("250 2.0.0 continue")
		if err := s.conn.nextChunk(); err != nil {
			return err
		}
	}
}

// endOfData is what go-smtp waits for when Data has returned.
const endOfData = ".\r\n"

// A mail whose text did not come to its end is refused with one of these. The client never sees the
// reply: it has given the mail up, or was told by conn.
var (
	errAborted  = errors.New("the client broke the message text off")
	errTimedOut = errors.New("the client took too long for the message text")
)

// refuse makes the reply that refuses a mail, and keeps the books of it.
func (s *session) refuse(envelope gateway.Envelope, size int64, err error) error {
	code, level := string(codeOf(err)), slog.LevelInfo
	answer := replyTo(err)
	switch {
	case errors.Is(err, errAborted), errors.Is(err, errTimedOut):
		code = "aborted"
	case answer.Temporary():
		level = slog.LevelWarn // the fault is ours
	}
	if level == slog.LevelInfo {
		s.count(envelope)
	}
	s.server.metrics.refused.WithLabelValues(code).Inc()
	s.server.opts.Logger.Log(context.Background(), level, "mail refused", "code", code, "reply", answer.Code, "reason", err.Error(),
		"routes", routes(envelope), "client", s.conn.client, "tls", envelope.TLS != "", "bytes", size)
	return answer
}

func (s *session) accepted(envelope gateway.Envelope, size int64) {
	secured := "no"
	if envelope.TLS != "" {
		secured = "yes"
	}
	s.server.metrics.accepted.WithLabelValues(secured).Inc()
	s.server.metrics.octets.Add(float64(size))
	s.count(envelope)
}

// count counts a mail for the limit of its client.
func (s *session) count(envelope gateway.Envelope) {
	if !envelope.TrustedRelay {
		s.server.rates.count(clientKey(envelope.Client))
	}
}

// forget closes the spool. The mail is accepted or refused by then; that stands.
func (s *session) forget(mail gateway.Spooled) {
	if err := mail.Close(); err != nil {
		s.server.opts.Logger.Error("spooled mail not closed", "error", err)
	}
}

func routes(envelope gateway.Envelope) string {
	seen := make(map[string]bool)
	list := make([]string, 0, 1)
	for _, r := range envelope.Recipients {
		if !seen[r.Route.Address] {
			seen[r.Route.Address] = true
			list = append(list, r.Route.Address)
		}
	}
	return strings.Join(list, ",")
}
