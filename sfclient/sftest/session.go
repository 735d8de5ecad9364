package sftest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/emersion/go-smtp"
)

// errDropped ends a session whose reply is withheld.
var errDropped = errors.New("connection dropped")

// session is one SMTP connection to an Org.
type session struct {
	org  *Org
	conn *smtp.Conn
	mail Mail
	// accepted is a mail that Email-to-Case has yet to get: go-smtp calls Reset once its reply is written,
	// also if the connection is gone.
	accepted *Mail
}

func (s *session) Logout() error { return nil }

func (s *session) Reset() {
	s.mail = Mail{}
	if s.accepted != nil {
		s.org.desk.hand(*s.accepted)
		s.accepted = nil
	}
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	_, secure := s.conn.TLSConnectionState()
	s.mail = Mail{
		From:     from,
		Hello:    s.conn.Hostname(),
		TLS:      secure,
		EightBit: opts.Body == smtp.Body8BitMIME,
		UTF8:     opts.UTF8,
	}
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if code := s.org.opts.RefuseRcpt; code != 0 {
		return reply(code, 1, 1, "mailbox refused for <"+to+">")
	}
	if !s.org.known(to) {
		return reply(550, 1, 1, "no such address <"+to+">")
	}
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	m := s.mail
	digest, raw := hash.Hash(nil), (*bytes.Buffer)(nil)
	into := []io.Writer{}
	if s.org.opts.Mode != Sink {
		digest = sha256.New()
		into = append(into, digest)
	}
	if s.org.opts.Mode == Whole {
		raw = &bytes.Buffer{}
		into = append(into, raw)
	}
	var err error
	if m.Size, err = io.Copy(io.MultiWriter(into...), r); err != nil {
		return err
	}
	m.Received = time.Now().UTC()
	if digest != nil {
		digest.Sum(m.SHA256[:0])
	}
	if raw != nil {
		m.Raw = raw.Bytes()
	}
	return s.end(m)
}

// end answers a mail that has come in whole.
func (s *session) end(m Mail) error {
	if !s.pause() {
		return errDropped
	}
	fail, drop := s.org.verdict(m)
	if fail {
		return reply(s.org.opts.FailCode, 3, 0, "told to fail")
	}
	if s.org.desk != nil {
		s.accepted = &m
	}
	if s.org.opts.OnMail != nil {
		s.org.opts.OnMail(m)
	}
	if drop {
		_ = s.conn.Conn().Close()
		return errDropped
	}
	return nil
}

// pause waits for the delay before a reply, and returns false if the Org is closed meanwhile.
func (s *session) pause() bool {
	if s.org.opts.Delay <= 0 {
		return true
	}
	timer := time.NewTimer(s.org.opts.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.org.closing:
		return false
	}
}

func reply(code, subject, detail int, text string) error {
	return &smtp.SMTPError{
		Code:         code,
		EnhancedCode: smtp.EnhancedCode{code / 100, subject, detail},
		Message:      text,
	}
}
