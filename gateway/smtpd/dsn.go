package smtpd

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"sealpost/gateway"
)

// The bounds of RFC 3461 sections 4.2 and 4.4, here of the decoded values.
const (
	maxEnvelopeID        = 100
	maxOriginalRecipient = 500
)

// envelopeID checks a decoded ENVID parameter (RFC 3461 section 4.4).
func envelopeID(value string) (gateway.Secret, error) {
	if value == "" {
		return gateway.Secret{}, nil
	}
	if len(value) > maxEnvelopeID || !isPrintable(value) {
		return gateway.Secret{}, reply(501, 5, 5, 4, "malformed ENVID parameter")
	}
	return gateway.NewSecret(value), nil
}

// dsnRequest makes the request of one recipient (RFC 3461 sections 4.1 and 4.2, RFC 6533 section 3).
func dsnRequest(opts *smtp.RcptOptions) (gateway.DSNRequest, error) {
	var request gateway.DSNRequest
	words := make([]string, 0, len(opts.Notify))
	for _, word := range []smtp.DSNNotify{smtp.DSNNotifyNever, smtp.DSNNotifySuccess, smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed} {
		if slices.Contains(opts.Notify, word) {
			words = append(words, string(word))
		}
	}
	request.Notify = strings.Join(words, ",")
	if opts.OriginalRecipient != "" {
		original := strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
		if len(original) > maxOriginalRecipient || !isPrintable(original) {
			return request, reply(501, 5, 5, 4, "malformed ORCPT parameter")
		}
		request.OriginalRecipient = gateway.NewSecret(original)
	}
	return request, nil
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
