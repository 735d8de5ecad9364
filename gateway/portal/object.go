package portal

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"sealpost/gateway"
)

// object gives the ciphertext of one object, or one range of it, for a grant. Without a grant that is
// bound to this very session and package it answers as if nothing were there.
func (p *portal) object(w http.ResponseWriter, r *http.Request) error {
	ctx, who, err := p.authorized(r)
	if err != nil {
		return err
	}
	id, err := gateway.ParsePackageID(r.PathValue("id"))
	if err != nil {
		return errNotFound
	}
	event := gateway.AuditEvent{Action: gateway.AuditDownload, Principal: who.principal(), Package: &id}
	object, _, err := p.granted(ctx, who, id, r)
	event.Object = object.Name
	span, part := wholeOf(object.Size), false
	if err == nil {
		span, part, err = requestedRange(r, object.Size)
	}
	if err == nil && r.Method == http.MethodHead {
		writeObjectHeader(w, object.Size, span, part)
		return nil
	}
	var body io.ReadCloser
	if err == nil {
		body, err = p.blobs.Get(ctx, object.Name, span.start, span.length)
		if err != nil {
			err = blobError(err)
		} else {
			defer func() { _ = body.Close() }() // a reader
		}
	}
	if auditErr := p.audit(r, event, err); auditErr != nil {
		return auditErr
	}
	if errors.Is(err, errRange) {
		// RFC 9110 section 15.5.17: say how long the object is.
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(object.Size, 10))
		writeJSON(w, http.StatusRequestedRangeNotSatisfiable, errorBody{Code: gateway.CodeInvalid, Message: errRange.Message})
		return nil
	}
	if err != nil {
		return err
	}
	writeObjectHeader(w, object.Size, span, part)
	p.metrics.bytes.Add(float64(span.length))
	return copyExactly(renewDeadline(w), body, span.length)
}

// granted returns the requested object if the request's grant covers it, and how long the grant lasts yet. The
// grant stands for the proof, so a package that has changed since tells its true state.
func (p *portal) granted(ctx context.Context, who identity, id gateway.PackageID, r *http.Request) (gateway.Object, time.Duration, error) {
	grant, err := p.store.Grant(ctx, sha256.Sum256([]byte(r.Header.Get(grantHeader))))
	if err != nil {
		return gateway.Object{}, 0, err
	}
	now, err := p.store.Now(ctx)
	if err != nil {
		return gateway.Object{}, 0, err
	}
	bound := subtle.ConstantTimeCompare(grant.SessionHash[:], who.hash[:]) == 1 && grant.Package == id
	if !bound || !now.Before(grant.Expires) {
		return gateway.Object{}, 0, errNotFound
	}
	pkg, err := p.store.Package(ctx, id)
	if err != nil {
		return gateway.Object{}, 0, err
	}
	if err := mayOpen(pkg, now); err != nil {
		return gateway.Object{}, 0, err
	}
	object, err := p.store.ObjectOf(ctx, id, r.PathValue("name"))
	return object, grant.Expires.Sub(now), err
}

func writeObjectHeader(w http.ResponseWriter, size int64, span byteRange, part bool) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(span.length, 10))
	if !part {
		w.WriteHeader(http.StatusOK)
		return
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", span.start, span.start+span.length-1, size))
	w.WriteHeader(http.StatusPartialContent)
}

// copyExactly copies length bytes to a reply whose header is sent; anything less is errInterrupted.
func copyExactly(w io.Writer, from io.Reader, length int64) error {
	n, err := io.Copy(w, io.LimitReader(from, length))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	return nil
}

// writeTimeout is how long a client may take for one write of at most a copy buffer.
const writeTimeout = time.Minute

// deadlineWriter gives each write its own time, so that a slow download ends only when it stands still.
type deadlineWriter struct {
	w    io.Writer
	ctrl *http.ResponseController
}

func renewDeadline(w http.ResponseWriter) io.Writer {
	return &deadlineWriter{w: w, ctrl: http.NewResponseController(w)}
}

func (d *deadlineWriter) Write(b []byte) (int, error) {
	err := d.ctrl.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("set the time for a write: %w", err)
	}
	return d.w.Write(b)
}
