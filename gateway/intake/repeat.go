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

// settleLimit bounds what a session waits for the database after its mail.
const settleLimit = 10 * time.Second

// fingerprint returns the keyed hash by which a repeat of this mail is known; nil for a mail without a Message-ID, which
// two people might well send alike.
func (in *Intake) fingerprint(envelope gateway.Envelope, mail Mail, message *rewrite.Message) ([]byte, error) {
	if len(in.options.FingerprintKey) == 0 || message.MessageID() == "" {
		return nil, nil
	}
	sum := hmac.New(sha256.New, in.options.FingerprintKey)
	frame(sum, envelope.MailFrom)
	for _, recipient := range envelope.Recipients {
		frame(sum, recipient.Address)
	}
	if _, err := io.Copy(sum, io.NewSectionReader(mail, 0, mail.Size())); err != nil {
		return nil, fmt.Errorf("take the mail's fingerprint: %w", err)
	}
	return sum.Sum(nil), nil
}

// frame keeps one value from running into the next.
func frame(sum hash.Hash, value string) {
	_ = binary.Write(sum, binary.BigEndian, uint32(len(value))) // a hash never fails
	_, _ = io.WriteString(sum, value)
}

// Settle says whether the client has heard the 250 of a mail: see smtpd.Handler. A failure is logged only: the mail is
// safe, and at worst a repeat of it is delivered too, or not told from it.
func (in *Intake) Settle(queueID string, heard bool) {
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	id, err := gateway.ParsePackageID(queueID)
	if err == nil {
		err = in.store.SettleMail(ctx, id, heard)
	}
	if err != nil {
		in.options.Logger.Error("whether a mail's 250 was heard cannot be recorded", "mail", queueID, "error", err)
	}
}

// refused remembers a mail that is not accepted, for `trace`.
func (t *transaction) refused(ctx context.Context, messageID string, err error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return // the gateway goes down
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
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
