package gateway

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an Error is. It is mapped once to an SMTP reply (gateway/smtpd) and
// once to an HTTP status (gateway/portal).
type Code string

// The codes. Where a sender or a client may try again later, the comment says so.
const (
	CodeInternal          Code = "internal"           // a fault of ours; may be tried again
	CodeUnavailable       Code = "unavailable"        // a part we need is away; may be tried again
	CodeStorageFull       Code = "storage_full"       // no room; may be tried again
	CodeTimeout           Code = "timeout"            // took too long; may be tried again
	CodeBusy              Code = "busy"               // over a limit of connections or log-ins; may be tried again
	CodeTooManyRecipients Code = "too_many_recipient" // the rest may be sent in another transaction
	CodeInvalid           Code = "invalid"            // the request or its content is malformed
	CodeTooLarge          Code = "too_large"
	CodeUnknownRecipient  Code = "unknown_recipient" // a domain of ours, an address that is not
	CodeRelayDenied       Code = "relay_denied"      // a domain that is not ours
	CodeLoop              Code = "loop"              // the mail has been through too many servers
	CodeRejected          Code = "rejected"          // policy refuses it
	CodeUnauthenticated   Code = "unauthenticated"
	CodeForbidden         Code = "forbidden"
	CodeNotFound          Code = "not_found"
	CodeConflict          Code = "conflict" // the state has changed in between
	CodeExpired           Code = "expired"
	CodeRevoked           Code = "revoked"
	CodeArriving          Code = "arriving" // the package is not complete yet
)

// Error is a failure that somebody outside may hear of: Code says what kind, Message says it in words
// that are safe to show to anyone, Err is the cause and stays in the log.
type Error struct {
	Code    Code
	Message string
	Err     error
}

// Errorf makes an Error. cause may be nil; the message must hold nothing secret.
func Errorf(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode returns the code of the outermost Error in err's chain, CodeInternal if there is none,
// and "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// ErrorMessage returns what an outsider may be told of err.
func ErrorMessage(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	return "internal error"
}
