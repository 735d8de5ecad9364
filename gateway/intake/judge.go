package intake

import (
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"sealpost/gateway"
	"sealpost/gateway/rewrite"
)

// Mail is the mail as it came.
type Mail interface {
	io.ReaderAt
	Size() int64
}

// Authenticator says whether a mail's sender is who it says. It returns the Authentication-Results field that tells
// of it, with its CRLF. Trouble with DNS is a result and no error.
type Authenticator interface {
	Authenticate(ctx context.Context, envelope gateway.Envelope, mail Mail) (gateway.Authentication, []byte, error)
}

// Scanner looks for viruses. An error means that it is away; a mail that is larger than it takes is unscanned.
type Scanner interface {
	Scan(ctx context.Context, mail io.Reader, size int64) (gateway.Scan, error)
}

// judge asks, of the mail as it came, who sent it and whether it holds a virus.
func (t *transaction) judge(ctx context.Context, mail Mail) error {
	group, ctx := errgroup.WithContext(ctx)
	if t.options.Authenticator != nil {
		group.Go(func() (err error) {
			if t.authentication, t.results, err = t.options.Authenticator.Authenticate(ctx, t.envelope, mail); err != nil {
				return fmt.Errorf("authenticate the sender: %w", err)
			}
			return nil
		})
	}
	if t.options.Scanner != nil {
		group.Go(func() error { return t.look(ctx, mail) })
	}
	return group.Wait()
}

func (t *transaction) look(ctx context.Context, mail Mail) (err error) {
	t.virus, err = t.options.Scanner.Scan(ctx, io.NewSectionReader(mail, 0, mail.Size()), mail.Size())
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return fmt.Errorf("scan for viruses: %w", err)
	case t.options.ScannerDown == gateway.Keep:
		t.options.Logger.ErrorContext(ctx, "the virus scanner is away; the mail passes unscanned", "mail", t.id.String(), "error", err)
		t.virus = gateway.Scan{Verdict: gateway.ScanUnscanned}
	default:
		return gateway.Errorf(gateway.CodeUnavailable, err, "the virus scanner is away; try again later")
	}
	return nil
}

// wholeReason is why the judges want the mail sealed whole; empty: they do not. An error refuses the mail.
func (t *transaction) wholeReason() (string, error) {
	if t.virus.Verdict == gateway.ScanInfected {
		if t.options.OnVirus != gateway.Seal || t.returns() {
			return "", gateway.Errorf(gateway.CodeRejected, nil, "a virus was found in the mail")
		}
		return "a virus was found", nil
	}
	policy, domain := t.envelope.Recipients[0].Route.DMARC, t.authentication.DMARCPolicy
	if t.authentication.DMARC != gateway.AuthFail || policy == gateway.DMARCNote || policy == "" {
		return "", nil
	}
	switch {
	case domain == "reject" && policy == gateway.DMARCReject:
		return "", gateway.Errorf(gateway.CodeRejected, nil, "the domain of the author asks to refuse mail that fails DMARC")
	case domain == "reject" || domain == "quarantine":
		return "the author's domain disowns it (DMARC)", nil
	}
	return "", nil
}

// returns tells that the mail goes back to a sender: it is a bounce.
func (t *transaction) returns() bool { return t.envelope.Recipients[0].Route.IsReturn() }

// silence says why the sender of the mail must never be sent a notice; empty: it may.
func (t *transaction) silence(message *rewrite.Message) (string, error) {
	switch {
	case t.envelope.MailFrom == "":
		return "null sender", nil
	case t.authentication.DMARC == gateway.AuthFail:
		return "DMARC failed", nil
	case t.authentication.SPF == gateway.AuthFail && t.authentication.DMARC != gateway.AuthPass:
		return "SPF failed", nil
	case isMachine(t.envelope.MailFrom):
		return "automatic sender", nil
	}
	reason := ""
	err := message.Fields(func(name, value string, _ int64) {
		if isAutomatic(name, strings.ToLower(strings.TrimSpace(value))) {
			reason = "automatic mail"
		}
	})
	return reason, err
}

// isMachine knows return paths that no person reads (RFC 3834 section 2). Another forwarder's SRS address is none of
// them: it leads back to whoever wrote.
func isMachine(sender string) bool {
	local, _, _ := strings.Cut(strings.ToLower(sender), "@")
	return strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") || local == "mailer-daemon"
}

// isAutomatic reports whether a header field says that no person sent the mail (RFC 3834 section 2, RFC 2919).
func isAutomatic(name, value string) bool {
	switch name {
	case "auto-submitted":
		word, _, _ := strings.Cut(value, ";")
		return strings.TrimSpace(word) != "no"
	case "precedence":
		return value == "bulk" || value == "junk" || value == "list"
	case "x-auto-response-suppress":
		return value != "" && value != "none"
	case "x-sfdc-autoresponse":
		return true
	}
	return strings.HasPrefix(name, "list-")
}
