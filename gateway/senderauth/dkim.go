package senderauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"sealpost/gateway"
)

const (
	maxSignatures = 5
	// maxBlank bounds a run of white space and empty lines. The DKIM library keeps one until it ends, and its
	// simple canonicalisation copies it again and again.
	maxBlank = 32 << 10
)

// verifyDKIM verifies the mail's signatures (RFC 6376 section 6.1), one finding for each.
func (m *judgement) verifyDKIM(ctx context.Context) ([]finding, error) {
	if m.header.signatures == 0 {
		return []finding{{result: gateway.AuthNone}}, nil
	}
	if !m.header.complete {
		return []finding{{result: gateway.AuthPermError, reason: "malformed header section"}}, nil
	}
	if m.header.costly {
		return []finding{{result: gateway.AuthPolicy, reason: "header section too large"}}, nil
	}
	src := &quietReader{src: contextReader{ctx: ctx, src: io.NewSectionReader(m.mail, 0, m.mail.Size())}}
	verifications, err := dkim.VerifyWithOptions(src, &dkim.VerifyOptions{
		LookupTXT:        func(name string) ([]string, error) { return m.a.dns.LookupTXT(m.lookups, name) },
		MaxVerifications: maxSignatures,
	})
	if src.err != nil {
		return nil, fmt.Errorf("read the mail for its signatures: %w", src.err)
	}
	if src.blank > maxBlank {
		return []finding{{result: gateway.AuthPolicy, reason: "too many empty lines"}}, nil
	}
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return []finding{{result: gateway.AuthPermError, reason: "signature not readable"}}, nil
	}
	findings := make([]finding, 0, len(verifications))
	for _, v := range verifications {
		f := finding{domain: domainOf(v.Domain), dmarc: true}
		f.result, f.reason = dkimResult(v.Err)
		findings = append(findings, f)
	}
	return findings, nil
}

// dkimResult is the word of RFC 8601 section 2.7.1, and why.
func dkimResult(err error) (gateway.AuthResult, string) {
	switch {
	case err == nil:
		return gateway.AuthPass, ""
	case dkim.IsTempFail(err):
		return gateway.AuthTempError, "key not available for now"
	case dkim.IsPermFail(err):
		return gateway.AuthPermError, dkimReason(err)
	}
	return gateway.AuthFail, dkimReason(err)
}

// dkimReason puts the library's words into ours, since theirs can hold what the sender wrote.
func dkimReason(err error) string {
	for _, r := range [][2]string{
		{"key is too short", "key too short"},
		{"no key for signature", "no key"},
		{"no valid key", "no key"},
		{"key revoked", "key revoked"},
		{"expired", "signature expired"},
		{"body hash did not verify", "body hash did not verify"},
		{"signature did not verify", "signature did not verify"},
		{"body length tag", "body length tag"},
		{"too weak", "algorithm too weak"},
	} {
		if strings.Contains(err.Error(), r[0]) {
			return r[1]
		}
	}
	return ""
}

// best is the overall result: one good signature is enough, and one that could be good later is not a failure.
func best(findings []finding) gateway.AuthResult {
	for _, want := range []gateway.AuthResult{
		gateway.AuthPass, gateway.AuthTempError, gateway.AuthFail, gateway.AuthPolicy,
		gateway.AuthSoftFail, gateway.AuthNeutral, gateway.AuthPermError, gateway.AuthNone,
	} {
		for _, f := range findings {
			if f.result == want {
				return want
			}
		}
	}
	return ""
}

// quietReader ends where reading fails, and remembers why: the library leaves its goroutines waiting for ever
// when its reader fails. It ends too where more than maxBlank octets of white space follow one another.
type quietReader struct {
	src   contextReader
	err   error
	blank int // white space at the end of what was read; over maxBlank: it has ended there
}

func (r *quietReader) Read(p []byte) (int, error) {
	if r.err != nil || r.blank > maxBlank {
		return 0, io.EOF
	}
	n, err := r.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err, err = err, io.EOF
	}
	for _, c := range p[:n] {
		switch c {
		case ' ', '\t', '\r', '\n':
			if r.blank++; r.blank > maxBlank {
				return 0, io.EOF
			}
		default:
			r.blank = 0
		}
	}
	return n, err
}
