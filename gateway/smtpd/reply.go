package smtpd

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/emersion/go-smtp"

	"sealpost/gateway"
)

// codeOf says what kind of failure err is.
func codeOf(err error) gateway.Code {
	var e *gateway.Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gateway.CodeStorageFull
	case errors.Is(err, context.DeadlineExceeded):
		return gateway.CodeTimeout
	case errors.Is(err, context.Canceled): // by a hard stop
		return gateway.CodeUnavailable
	}
	return gateway.CodeInternal
}

// replyTo maps err to the reply that ends its command (RFC 5321 section 4.2, RFC 3463).
func replyTo(err error) *smtp.SMTPError {
	reply := replyFor(codeOf(err))
	var e *gateway.Error
	if errors.As(err, &e) && e.Message != "" {
		reply.Message = printable(e.Message)
	}
	return reply
}

func replyFor(code gateway.Code) *smtp.SMTPError {
	switch code {
	case gateway.CodeStorageFull:
		return reply(452, 4, 3, 1, "no room to store the mail; try again later")
	case gateway.CodeTimeout:
		return reply(451, 4, 3, 0, "storing the mail took too long, nothing was accepted; try again later")
	case gateway.CodeBusy:
		return reply(421, 4, 7, 0, "too busy; try again later")
	case gateway.CodeTooManyRecipients:
		return reply(452, 4, 5, 3, "too many recipients; send the rest in another transaction")
	case gateway.CodeInvalid:
		return reply(554, 5, 6, 0, "malformed message, nothing was accepted")
	case gateway.CodeTooLarge:
		return reply(552, 5, 3, 4, "message too large")
	case gateway.CodeUnknownRecipient:
		return reply(550, 5, 1, 1, "no such mailbox here")
	case gateway.CodeRelayDenied:
		return reply(550, 5, 7, 1, "relaying denied; this server takes mail for its own addresses only")
	case gateway.CodeLoop:
		return reply(554, 5, 4, 6, "mail loop")
	case gateway.CodeRejected:
		return reply(550, 5, 7, 1, "refused by policy")
	}
	// Everything else is a fault of ours, which may be mended by the next try.
	return reply(451, 4, 3, 0, "internal failure, nothing was accepted; try again later")
}

func reply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

// maxReplyText keeps a reply line within 512 octets (RFC 5321 section 4.5.3.1.5).
const maxReplyText = 480

// printable makes s fit for one reply line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxReplyText)]
}
