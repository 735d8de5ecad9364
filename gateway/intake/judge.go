package intake

import (
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
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

// whole is why a mail is sealed whole that might have been taken apart. The zero value: it is taken apart.
type whole struct {
	reason string
	cause  rewrite.Cause
}

// judged is why the judges want the mail sealed whole. An error refuses the mail. One from a relay in front of us is
// not refused: the relay has accepted it, and could only bounce it to a sender who may be forged.
func (t *transaction) judged() (whole, error) {
	if t.virus.Verdict == gateway.ScanInfected {
		if t.options.OnVirus != gateway.Seal && !t.envelope.TrustedRelay || t.returns() {
			return whole{}, gateway.Errorf(gateway.CodeRejected, nil, "a virus was found in the mail")
		}
		return whole{"a virus was found", rewrite.CauseVirus}, nil
	}
	policy := t.envelope.Recipients[0].Route.DMARC
	if policy != gateway.DMARCSeal && policy != gateway.DMARCReject {
		return whole{}, nil
	}
	a := t.authentication
	disowned := a.DMARC == gateway.AuthFail && (a.DMARCPolicy == "reject" || a.DMARCPolicy == "quarantine")
	switch {
	case a.Advisory:
	case disowned && a.DMARCPolicy == "reject" && policy == gateway.DMARCReject && !t.envelope.TrustedRelay:
		return whole{}, gateway.Errorf(gateway.CodeRejected, nil, "the domain of the author asks to refuse mail that fails DMARC")
	case disowned:
		return whole{"the author's domain disowns it (DMARC)", rewrite.CauseDisowned}, nil
	case a.NoAuthor:
		return whole{"the domain of an author cannot be read (DMARC)", rewrite.CauseUnproven}, nil
	case a.DMARC == gateway.AuthTempError && a.DMARCPolicy != "none": // a sender can choose names that make DNS fail
		return whole{"whether the author's domain disowns it cannot be found out (DMARC)", rewrite.CauseUnproven}, nil
	}
	return whole{}, nil
}

// returns tells that the mail goes back to a sender: it is a bounce.
func (t *transaction) returns() bool { return t.envelope.Recipients[0].Route.IsReturn() }

// silence says why the sender of the mail must never be sent a notice; empty: it may.
func (t *transaction) silence(message *rewrite.Message) (string, error) {
	switch {
	case t.envelope.MailFrom == "":
		return "null sender", nil
	case t.authentication.DMARC == gateway.AuthFail && !t.authentication.Advisory:
		return "DMARC failed", nil
	case t.forged():
		return "the return path is not proven", nil
	case isMachine(t.envelope.MailFrom) || t.isReturnPath(t.envelope.MailFrom):
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

// forged reports whether MAIL FROM's domain says that the mail is not its own, and nothing else vouches for it. DMARC is
// about the author in From, who may be another, so a pass alone does not.
func (t *transaction) forged() bool {
	a := t.authentication
	return !a.ReturnPathProven && (a.SPF == gateway.AuthFail || a.SPF == gateway.AuthSoftFail)
}

// tellFailuresOnly takes requests for other notices out of the deliveries where nothing proves the return path: a
// failure must not be lost, but whoever names another as the sender must not make us write to him at will.
func (t *transaction) tellFailuresOnly() {
	if t.options.Authenticator == nil || t.authentication.ReturnPathProven || t.returns() {
		return
	}
	for i := range t.deliveries {
		dsn := &t.deliveries[i].DSN
		if dsn.Wants(gateway.NoticeFailed) {
			dsn.Notify = "FAILURE"
		} else {
			dsn.Notify = "NEVER"
		}
	}
}

// isReturnPath reports whether an address is one that we gave a mail, whose bounces come back by us: who sends from it
// is no sender.
func (t *transaction) isReturnPath(address string) bool {
	ours := crypto.CanonicalAddress("@" + t.options.ReturnDomain)
	return t.options.ReturnDomain != "" && strings.HasSuffix(strings.TrimSuffix(crypto.CanonicalAddress(address), "."), ours)
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
