package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"unicode/utf8"
)

// refusal is our own reason why a next hop can never take a mail, with its enhanced code (RFC 3463).
type refusal struct{ status, text string }

func (r refusal) Error() string { return r.text }

// Is tells that a null MX is one.
func (r refusal) Is(target error) bool { return target == ErrNullMX && r.status == "5.1.10" }

// copyError is a fault of the mail's copy, not of the next hop.
type copyError struct{ err error }

func (e *copyError) Error() string { return "the mail's copy cannot be read: " + e.err.Error() }
func (e *copyError) Unwrap() error { return e.err }

// send does one mail transaction (RFC 5321 section 3.3) and returns the reply to the final dot and the
// bytes of the mail that went out. Unless the mail ends properly and has the size it should, no dot is sent.
func (s *session) send(m *message) (string, int64, error) {
	s.mails++
	form, _, err := s.envelope(m)
	if err != nil {
		return "", 0, err
	}
	if _, err := s.command(stageData, s.timeouts.Data, 3, "DATA"); err != nil {
		return "", 0, err
	}
	sent, err := s.body(form)
	if err != nil {
		return "", sent, err
	}
	msg, err := s.reply(stageFinal, s.timeouts.Final, 2)
	s.dirty = s.code/100 == 4 || s.code/100 == 5
	return msg, sent, err
}

// envelope says MAIL and RCPT for m, and returns how m is sent then, and the reply to RCPT.
func (s *session) envelope(m *message) (*form, string, error) {
	form, err := m.fit(s.ext)
	if err != nil {
		return nil, "", &stageError{stageMail, err}
	}
	if s.dirty {
		if _, err := s.command(stageReset, s.timeouts.Mail, 2, "RSET"); err != nil {
			return nil, "", err
		}
	}
	s.dirty = true
	if _, err := s.command(stageMail, s.timeouts.Mail, 2, form.mail); err != nil {
		return nil, "", s.inPlaintext(err)
	}
	reply, err := s.command(stageRcpt, s.timeouts.Rcpt, 2, form.rcpt)
	return form, reply, err
}

// body streams the mail, dot-stuffed, with the final dot, and returns the bytes of it that were written.
func (s *session) body(form *form) (int64, error) {
	dot := s.text.DotWriter()
	out := &sink{w: dot}
	err := form.write(out)
	switch {
	case out.err != nil:
		return out.n, s.interrupted(out.err)
	case err != nil:
		return out.n, &stageError{stageBody, &copyError{err}}
	case form.size >= 0 && out.n != form.size: // a conversion checks what it reads
		return out.n, &stageError{stageBody, &copyError{fmt.Errorf("it has %d bytes instead of %d", out.n, form.size)}}
	}
	if err := dot.Close(); err != nil {
		return out.n, s.interrupted(err)
	}
	return out.n, nil
}

// sink counts what is written and remembers what went wrong, to tell it from a failed read.
type sink struct {
	w   io.Writer
	n   int64
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	if err != nil {
		s.err = err
	}
	return n, err
}

// interrupted says why a write failed. A hop that refuses in the midst of DATA and hangs up may have said
// why; what it said is then still to be read.
func (s *session) interrupted(err error) error {
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		_, said := s.reply(stageBody, s.timeouts.Quit, 2)
		s.idle = false
		var refused *textproto.Error
		if errors.As(said, &refused) && refused.Code >= 400 {
			return said
		}
	}
	return &stageError{stageBody, err}
}

// path writes an address as a reverse or forward path (RFC 5321 section 4.1.2). A local part that is no
// dot-string is quoted unless it is already. It returns false for an address with control characters.
func path(address string) (string, bool) {
	if address == "" {
		return "<>", true
	}
	if strings.ContainsFunc(address, func(c rune) bool { return c < ' ' || c == 0x7f || c == utf8.RuneError }) {
		return "", false
	}
	at := strings.LastIndexByte(address, '@')
	local, domain := address, ""
	if at >= 0 {
		local, domain = address[:at], address[at:]
	}
	if strings.ContainsAny(domain, "<> ") {
		return "", false
	}
	if !isDotString(local) && !isQuoted(local) {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	return "<" + local + domain + ">", true
}

func isDotString(local string) bool {
	return local != "" && !strings.ContainsAny(local, "()<>[]:;@\\,\" ")
}

// isQuoted reports whether local is one well-formed quoted-string.
func isQuoted(local string) bool {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return false
	}
	inner := []byte(local[1 : len(local)-1])
	inner = bytes.ReplaceAll(inner, []byte(`\\`), nil)
	inner = bytes.ReplaceAll(inner, []byte(`\"`), nil)
	return !bytes.ContainsAny(inner, `"\`)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf })
}
