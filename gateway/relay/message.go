package relay

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sealpost/gateway"
)

// message is what an attempt sends.
type message struct {
	from, to string
	mail     gateway.QueuedMail
	open     func() (io.ReadCloser, error)
	body     io.ReadCloser // the copy, opened once already; nil: it was read
	// dsn, ret and envid are what the sender asked for (RFC 3461); public is the recipient that it knows, empty
	// when nothing is to be passed on. passSuccess tells that the next hop may report success.
	dsn         gateway.DSNRequest
	ret, envid  string
	public      string
	passSuccess bool

	downgrade Downgrade
	address   func(string) (string, bool)
}

func (m *message) close() {
	if m.body != nil {
		_ = m.body.Close()
		m.body = nil
	}
}

// form is a message as one next hop can take it.
type form struct {
	mail, rcpt string // the commands
	size       int64  // -1: not known
	// write fails with the sink's error, or with that of the mail's copy.
	write func(io.Writer) error
}

// fit makes the commands for a hop that offers ext, or a refusal when it cannot take the mail:
// SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461).
func (m *message) fit(ext map[string]string) (*form, error) {
	_, hasUTF8 := ext["SMTPUTF8"]
	_, hasEight := ext["8BITMIME"]
	from, to := m.from, m.to
	if !hasUTF8 {
		var ok1, ok2 bool
		from, ok1 = m.ascii(from)
		to, ok2 = m.ascii(to)
		if !ok1 || !ok2 {
			return nil, lacksUTF8()
		}
	}
	fromPath, ok := path(from)
	toPath, ok2 := path(to)
	if !ok || !ok2 || to == "" {
		return nil, refusal{"5.1.3", "an address of the envelope cannot be written in SMTP"}
	}
	f, err := m.content(m.mail.EightBit && !hasEight, m.mail.UTF8 && !hasUTF8)
	if err != nil {
		return nil, err
	}
	params := ""
	if limit, offered := ext["SIZE"]; offered && f.size >= 0 { // optional: RFC 1870 section 6.1
		if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && n > 0 && n < f.size {
			return nil, refusal{"5.3.4", fmt.Sprintf("next hop takes at most %d bytes, the mail has %d", n, f.size)}
		}
		params += fmt.Sprintf(" SIZE=%d", f.size)
	}
	if hasEight && (m.mail.EightBit || m.mail.UTF8 && hasUTF8) {
		params += " BODY=8BITMIME"
	}
	if hasUTF8 && (m.mail.UTF8 || !isASCII(from) || !isASCII(to)) {
		params += " SMTPUTF8"
	}
	mailDSN, rcptDSN := m.dsnParams(ext)
	f.mail, f.rcpt = "MAIL FROM:"+fromPath+params+mailDSN, "RCPT TO:"+toPath+rcptDSN
	return f, nil
}

// ascii writes an address for a hop without SMTPUTF8.
func (m *message) ascii(address string) (string, bool) {
	switch {
	case isASCII(address):
		return address, true
	case m.address == nil:
		return "", false
	}
	return m.address(address)
}

// lacksUTF8 refuses a mail that needs SMTPUTF8 where it is not offered: RFC 6531 section 3.2 bids us reject it, and
// 5.6.7 is the code of its section 3.5 for addresses. Its 5.6.9, for header fields, is a server's answer to the final
// dot; here as in Postfix 5.6.7 says, before MAIL, that SMTPUTF8 is what is missing, for whichever of the two.
func lacksUTF8() refusal { return refusal{"5.6.7", "next hop lacks SMTPUTF8"} }

// lacksEightBit refuses a mail with 8-bit text where 8BITMIME is not offered and a conversion is not exact: by RFC 6152
// section 3 that is a permanent error, which RFC 3463 section 3.7 calls 5.6.3, conversion required but not supported.
func lacksEightBit() refusal { return refusal{"5.6.3", "next hop lacks 8BITMIME"} }

// content returns how the mail is written where 8BITMIME or SMTPUTF8 are lacking. Whether a conversion is exact is
// known then, its size is not.
func (m *message) content(eightBit, utf8 bool) (*form, error) {
	if !eightBit && !utf8 {
		return &form{size: m.mail.Size, write: m.unchanged}, nil
	}
	lacks := lacksEightBit()
	if utf8 {
		lacks = lacksUTF8()
	}
	if m.downgrade == nil {
		return nil, lacks
	}
	var fault error
	write, err := m.downgrade(func() (io.ReadCloser, error) {
		body, err := m.take()
		if err != nil {
			fault = err
			return nil, err
		}
		return &watched{body, m.mail.Size, &fault}, nil
	}, eightBit, utf8)
	switch {
	case fault != nil:
		return nil, &copyError{fault}
	case err != nil:
		return nil, refusal{lacks.status, lacks.text + ", and the mail cannot be converted without loss"}
	}
	return &form{size: -1, write: func(w io.Writer) error {
		if err := write(w); fault == nil {
			return err
		}
		return fault
	}}, nil
}

// take returns the copy from its beginning.
func (m *message) take() (io.ReadCloser, error) {
	if body := m.body; body != nil {
		m.body = nil
		return body, nil
	}
	return m.open()
}

func (m *message) unchanged(w io.Writer) error {
	body, err := m.take()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	_ = body.Close() // all that matters of it was read
	return err
}

// watched is the mail's copy as a conversion reads it. What goes wrong with it, or a wrong size, is kept in fault: no
// judgement of the mail counts then.
type watched struct {
	io.ReadCloser
	left  int64
	fault *error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		*w.fault = err
	}
	if errors.Is(err, io.EOF) && w.left != 0 {
		*w.fault = fmt.Errorf("it differs in size by %d bytes", w.left)
		return n, *w.fault
	}
	return n, err
}

// Close keeps an error as a fault too: what was read may not be what was written.
func (w *watched) Close() error {
	err := w.ReadCloser.Close()
	if err != nil && *w.fault == nil {
		*w.fault = err
	}
	return err
}

// dsnParams returns the parameters of MAIL and RCPT that carry the sender's requests on (RFC 3461 section 4).
func (m *message) dsnParams(ext map[string]string) (mail, rcpt string) {
	if _, offered := ext["DSN"]; !offered || m.public == "" {
		return "", ""
	}
	if m.ret != "" {
		mail += " RET=" + m.ret
	}
	if m.envid != "" && isASCII(m.envid) {
		mail += " ENVID=" + xtext(m.envid)
	}
	if m.dsn.Notify != "" {
		rcpt += " NOTIFY=" + m.notify()
	}
	original := m.dsn.OriginalRecipient.Reveal()
	if original == "" {
		original = "rfc822;" + m.public
	}
	if kind, address, ok := strings.Cut(original, ";"); ok && isASCII(original) {
		rcpt += " ORCPT=" + kind + ";" + xtext(address)
	}
	return mail, rcpt
}

// notify leaves out SUCCESS where the next hop's report would go straight to an outsider.
func (m *message) notify() string {
	if m.passSuccess {
		return m.dsn.Notify
	}
	var words []string
	for word := range strings.SplitSeq(m.dsn.Notify, ",") {
		if word != "SUCCESS" {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "NEVER"
	}
	return strings.Join(words, ",")
}

// xtext encodes a parameter (RFC 3461 section 4).
func xtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
