package intake

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/rewrite"
)

// rememberLimit bounds what a session waits for the database after a mail that is refused.
const rememberLimit = 10 * time.Second

// digest takes what a repeat of the mail, and a loop, is known by. A mail without a Message-ID has no fingerprint, since
// two people might well send such alike.
func (t *transaction) digest(message *rewrite.Message) error {
	from, subject := "", ""
	err := message.Fields(func(name, value string, _ int64) {
		switch name {
		case "from":
			from = value
		case "subject":
			subject = value
		case "x-sfdc-autoresponse":
			t.autoresponse = true
		}
	})
	if err != nil {
		return err
	}
	body := message.BodySum() // stands for the body in both
	alike := sha256.New()
	frame(alike, from)
	frame(alike, subject)
	_, _ = alike.Write(body[:]) // never fails (hash.Hash)
	t.alike = [sha256.Size]byte(alike.Sum(nil))
	if len(t.options.FingerprintKey) == 0 || message.MessageID() == "" {
		return nil
	}
	repeat := hmac.New(sha256.New, t.options.FingerprintKey)
	for _, word := range append(t.verdicts(), t.network(), t.envelope.MailFrom) {
		frame(repeat, word)
	}
	for _, recipient := range t.envelope.Recipients {
		frame(repeat, recipient.Address)
	}
	if _, err := io.Copy(repeat, message.Header()); err != nil {
		return fmt.Errorf("take the mail's fingerprint: %w", err)
	}
	_, _ = repeat.Write(body[:])
	t.fingerprint = repeat.Sum(nil)
	return nil
}

// verdicts are the words of those who judged the mail.
func (t *transaction) verdicts() []string {
	a := t.authentication
	return []string{string(a.SPF), string(a.DKIM), string(a.DMARC), a.DMARCPolicy, string(t.virus.Verdict)}
}

// network is where the mail comes from: a server that tries again may do so from a neighbour, and of the relays in
// front of us one may stand in for another.
func (t *transaction) network() string {
	if t.envelope.TrustedRelay {
		return "relay"
	}
	client := t.envelope.Client.Unmap()
	bits := 24
	if client.Is6() {
		bits = 48
	}
	network, err := client.Prefix(bits)
	if err != nil { // there is no address
		return ""
	}
	return network.String()
}

// frame keeps one value from running into the next.
func frame(sum hash.Hash, value string) {
	_ = binary.Write(sum, binary.BigEndian, uint32(len(value))) // a hash never fails
	_, _ = io.WriteString(sum, value)
}

// Settle says whether the client has heard the 250 of a mail: see smtpd.Handler. A failure is logged only: the mail is
// safe, and at worst a repeat of it is delivered too, or not told from it.
func (in *Intake) Settle(queueID string, heard bool) {
	id, err := gateway.ParsePackageID(queueID)
	if err != nil {
		in.options.Logger.Error("whether a mail's 250 was heard cannot be recorded", "mail", queueID, "error", err)
		return
	}
	in.store.SettleMail(id, heard)
}

// refused remembers a mail that is not accepted, for `trace`.
func (t *transaction) refused(ctx context.Context, messageID string, err error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return // the gateway goes down
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rememberLimit)
	defer cancel()
	code := gateway.ErrorCode(err)
	refusal := gateway.Refusal{
		MessageID: gateway.NewSecret(messageID), Envelope: t.envelope, Code: code, Reason: gateway.ErrorMessage(err),
		Temporary: code != gateway.CodeRejected && code != gateway.CodeInvalid && code != gateway.CodeTooLarge && code != gateway.CodeLoop,
		Scan:      t.virus, Authentication: t.authentication,
	}
	if err := t.store.RecordRefusal(ctx, refusal); err != nil {
		t.options.Logger.WarnContext(ctx, "a refused mail cannot be remembered", "mail", t.id.String(), "error", err)
	}
}
