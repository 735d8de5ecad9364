package portal

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net/http"

	"sealpost/gateway"
)

const maxBody = 64 << 10

// errNotFound is the one answer to whoever lacks a session or a valid proof: the same bytes for a package
// that is unknown, foreign, expired or revoked.
var errNotFound = gateway.Errorf(gateway.CodeNotFound, nil, "There is nothing here that you may see.")

// errInterrupted marks a failure after the reply's header was sent. The declared Content-Length is then
// not reached, which makes net/http close the connection: the client sees a cut body, not a short one.
var errInterrupted = errors.New("reply interrupted")

// status is the one mapping of domain codes to HTTP.
func status(code gateway.Code) int {
	switch code {
	case gateway.CodeInvalid:
		return http.StatusBadRequest
	case gateway.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case gateway.CodeUnauthenticated:
		return http.StatusUnauthorized
	case gateway.CodeForbidden:
		return http.StatusForbidden
	case gateway.CodeNotFound:
		return http.StatusNotFound
	case gateway.CodeConflict, gateway.CodeArriving:
		return http.StatusConflict
	case gateway.CodeExpired, gateway.CodeRevoked:
		return http.StatusGone
	case gateway.CodeBusy:
		return http.StatusTooManyRequests
	case gateway.CodeUnavailable, gateway.CodeStorageFull, gateway.CodeTimeout:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// api turns a handler's error into the reply and, when the fault is ours, into one log line.
func (p *portal) api(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		code := gateway.ErrorCode(err)
		if r.Context().Err() == nil && (status(code) >= http.StatusInternalServerError || errors.Is(err, errInterrupted)) {
			p.log.LogAttrs(r.Context(), levelOf(code), "portal request failed", routeAttr(r), errorAttr(err))
		}
		if !errors.Is(err, errInterrupted) {
			writeError(w, err)
		}
	})
}

type errorBody struct {
	Code    gateway.Code `json:"code"`
	Message string       `json:"message"`
}

func writeError(w http.ResponseWriter, err error) {
	code := gateway.ErrorCode(err)
	if code == gateway.CodeNotFound {
		err = errNotFound
	}
	writeJSON(w, status(code), errorBody{Code: code, Message: gateway.ErrorMessage(err)})
}

// writeJSON writes small replies; who reads no longer is of no interest.
func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// readJSON reads a bounded JSON body. That it must be declared as JSON keeps plain HTML forms out.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return gateway.Errorf(gateway.CodeInvalid, nil, "The request body must be application/json.")
	}
	err = json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return gateway.Errorf(gateway.CodeTooLarge, nil, "The request body is too large.")
	}
	if err != nil {
		// The decoder's error can quote the body, so it is not kept.
		return gateway.Errorf(gateway.CodeInvalid, nil, "The request body is not the JSON that was expected.")
	}
	return nil
}

// blobError gives an error of the blob store its code: an object that the database knows must be there.
func blobError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gateway.Errorf(gateway.CodeInternal, err, "A part of this package is missing in storage.")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return gateway.Errorf(gateway.CodeTimeout, err, "Storage took too long to answer.")
	}
	return gateway.Errorf(gateway.CodeUnavailable, err, "Storage is not available at the moment.")
}
