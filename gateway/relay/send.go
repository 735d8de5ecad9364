package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"unicode/utf8"

	"sealpost/gateway"
)

// refusal is our own reason why a next hop can never take a mail.
type refusal string

func (r refusal) Error() string { return string(r) }

// copyError is a fault of the mail's copy, not of the next hop.
type copyError struct{ err error }

func (e *copyError) Error() string { return "the mail's copy cannot be read: " + e.err.Error() }
func (e *copyError) Unwrap() error { return e.err }

// send does one mail transaction (RFC 5321 section 3.3) and returns the reply to the final dot and the
// bytes of the mail that went out. Unless body ends properly and has the size that mail says, no dot is sent.
func (s *session) send(mail gateway.QueuedMail, forwardTo string, body io.Reader) (string, int64, error) {
	from, to := mail.MailFrom.Reveal(), forwardTo
	params, err := s.mailParams(mail, !isASCII(from) || !isASCII(to))
	if err != nil {
		return "", 0, &stageError{stageMail, err}
	}
	fromPath, ok := path(from)
	toPath, ok2 := path(to)
	if !ok || !ok2 || to == "" {
		return "", 0, &stageError{stageMail, refusal("an address of the envelope cannot be written in SMTP")}
	}
	if _, err := s.command(stageMail, s.timeouts.Mail, 2, "MAIL FROM:"+fromPath+params); err != nil {
		return "", 0, err
	}
	if _, err := s.command(stageRcpt, s.timeouts.Rcpt, 2, "RCPT TO:"+toPath); err != nil {
		return "", 0, err
	}
	if _, err := s.command(stageData, s.timeouts.Data, 3, "DATA"); err != nil {
		return "", 0, err
	}
	sent, err := s.body(mail.Size, body)
	if err != nil {
		return "", sent, err
	}
	msg, err := s.reply(stageFinal, s.timeouts.Final, 2)
	return msg, sent, err
}

// mailParams returns the parameters of MAIL, or a refusal when the hop lacks what the mail needs:
// SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531).
func (s *session) mailParams(mail gateway.QueuedMail, addressUTF8 bool) (string, error) {
	params := ""
	if limit, offered := s.ext["SIZE"]; offered {
		if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && n > 0 && n < mail.Size {
			return "", refusal(fmt.Sprintf("next hop takes at most %d bytes, the mail has %d", n, mail.Size))
		}
		params += fmt.Sprintf(" SIZE=%d", mail.Size)
	}
	needUTF8 := mail.UTF8 || addressUTF8
	if _, offered := s.ext["SMTPUTF8"]; needUTF8 && !offered {
		return "", refusal("next hop lacks SMTPUTF8")
	}
	_, eightBit := s.ext["8BITMIME"]
	if mail.EightBit && !eightBit {
		return "", refusal("next hop lacks 8BITMIME")
	}
	if eightBit && (mail.EightBit || mail.UTF8) {
		params += " BODY=8BITMIME"
	}
	if needUTF8 {
		params += " SMTPUTF8"
	}
	return params, nil
}

// body streams the mail, dot-stuffed, with the final dot, and returns the bytes read from it.
func (s *session) body(size int64, r io.Reader) (int64, error) {
	src := &source{r: r}
	dot := s.text.DotWriter()
	_, err := io.Copy(dot, src)
	switch {
	case src.err != nil:
		return src.n, &stageError{stageBody, &copyError{src.err}}
	case err != nil:
		return src.n, s.interrupted(err)
	case src.n != size:
		return src.n, &stageError{stageBody, &copyError{fmt.Errorf("it has %d bytes instead of %d", src.n, size)}}
	}
	if err := dot.Close(); err != nil {
		return src.n, s.interrupted(err)
	}
	return src.n, nil
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

// source counts what is read from a mail and remembers what went wrong, to tell it from a failed write.
type source struct {
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
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
