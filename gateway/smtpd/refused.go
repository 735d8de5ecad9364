package smtpd

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"sealpost/gateway"
)

// rememberLimit bounds what a dialogue waits while a refusal is remembered.
const rememberLimit = 10 * time.Second

// remember tells Options.Refused of a mail that is refused for its text. It is nothing where the client broke off, which
// was told no reason, nor without a Message-ID, by which alone a refusal is found again.
func (s *session) remember(envelope gateway.Envelope, text *body, err error) {
	id := text.id.value()
	if s.server.opts.Refused == nil || id == "" || errors.Is(err, errAborted) || errors.Is(err, errTimedOut) {
		return
	}
	ctx, cancel := context.WithTimeout(s.server.intake(), rememberLimit)
	defer cancel()
	answer := replyTo(err)
	refusal := gateway.Refusal{
		At: time.Now(), MessageID: gateway.NewSecret(id), Envelope: envelope,
		Code: codeOf(err), Reason: answer.Message, Temporary: answer.Temporary(),
	}
	if err := s.server.opts.Refused(ctx, refusal); err != nil {
		s.server.opts.Logger.Warn("a refused mail cannot be remembered", "code", string(codeOf(err)), "error", err)
	}
}

const (
	maxIDLine = 2000    // of a header line; RFC 5322 section 2.1.1 allows 998
	maxHeader = 1 << 20 // how far the header section is read
)

// idFinder finds the first Message-ID in the header section of a mail (RFC 5322 section 3.6.4) while its text streams
// by. Lines may end as they like, since that is what a mail may be refused for.
type idFinder struct {
	line  []byte // the current one, as far as it is of use
	read  int
	field []byte // the body of the Message-ID field, its folds taken out
	found bool
	over  bool // the field or the header section has ended
}

// scan takes the next octets of text.
func (f *idFinder) scan(p []byte) {
	for len(p) > 0 && !f.over {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		f.read += len(p) - len(rest)
		f.line = append(f.line, line[:min(len(line), maxIDLine-len(f.line))]...)
		if ended {
			f.endLine()
		}
		p = rest
		f.over = f.over || f.read > maxHeader
	}
}

// endLine tells that a line has ended. Its CR may or may not have been given.
func (f *idFinder) endLine() {
	line := bytes.TrimRight(f.line, "\r")
	f.line = f.line[:0]
	folded := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	switch {
	case f.found && folded && len(f.field) < maxIDLine:
		f.field = append(f.field, line...)
	case f.found, len(line) == 0:
		f.over = true
	case !folded:
		name, text, _ := bytes.Cut(line, []byte{':'})
		if f.found = strings.EqualFold(string(bytes.TrimRight(name, " \t")), "Message-ID"); f.found {
			f.field = append(f.field, text...)
		}
	}
}

// value returns the Message-ID with its angle brackets, or "" when there is none that is whole.
func (f *idFinder) value() string {
	id := string(bytes.TrimSpace(f.field))
	if !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, ">") {
		return ""
	}
	return id
}
