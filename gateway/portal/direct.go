package portal

import (
	"context"
	"net/http"
	"time"

	"sealpost/gateway"
)

// Direct makes URLs by which an object's ciphertext comes from where it is stored, and not through the portal.
type Direct interface {
	// URL returns one that anybody who knows it may GET, whole or in ranges, for the time given.
	URL(ctx context.Context, object string, valid time.Duration) (gateway.Secret, error)
	// Origin is the scheme and host of every such URL. The pages may connect to it.
	Origin() string
}

// direct answers {"url"} for one object and a grant, which also says for how long: no longer than the grant. The
// URL is a bearer token for ciphertext, so it stands in a body only.
func (p *portal) direct(w http.ResponseWriter, r *http.Request) error {
	ctx, who, err := p.authorized(r)
	if err != nil {
		return err
	}
	id, err := gateway.ParsePackageID(r.PathValue("id"))
	if err != nil {
		return errNotFound
	}
	event := gateway.AuditEvent{Action: gateway.AuditDownload, Principal: who.principal(), Package: &id}
	object, left, err := p.granted(ctx, who, id, r)
	event.Object = object.Name
	var url gateway.Secret
	if err == nil {
		if url, err = p.opts.Direct.URL(ctx, object.Name, left); err != nil {
			err = blobError(err)
		}
	}
	if auditErr := p.audit(r, event, err); auditErr != nil {
		return auditErr
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		URL string `json:"url"`
	}{url.Reveal()})
	return nil
}
