package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"sealpost/gateway"
)

// grantHeader carries the grant's token, so that it is in no URL and no log.
const grantHeader = "Sealpost-Grant"

// opened is what one open hands out.
type opened struct {
	secret  gateway.Secret
	grant   string
	expires time.Time
	scan    *scanReply
	head    io.ReadCloser
	size    int64
}

// scanReply is the warning that goes with a package whose mail was not found clean.
type scanReply struct {
	Verdict   gateway.ScanVerdict `json:"verdict"`
	Signature string              `json:"signature,omitempty"`
}

// warning returns nil when there is nothing to warn of.
func warning(scan gateway.Scan) *scanReply {
	if scan.Verdict == "" || scan.Verdict == gateway.ScanClean {
		return nil
	}
	return &scanReply{Verdict: scan.Verdict, Signature: scan.Signature}
}

// open takes {"proof"} and answers {"server_secret", "grant", "expires", "scan", "direct", "head"}: S as
// base64url, the grant's token and its end, {"verdict", "signature"} when a virus scanner found something or
// could not look, whether objects come by URLs of their own, and the head object as standard base64.
func (p *portal) open(w http.ResponseWriter, r *http.Request) error {
	ctx, who, err := p.authorized(r)
	if err != nil {
		return err
	}
	id, err := gateway.ParsePackageID(r.PathValue("id"))
	if err != nil {
		return errNotFound
	}
	var request struct {
		Proof string `json:"proof"`
	}
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	out, err := p.tryOpen(ctx, who, id, request.Proof)
	p.metrics.opens.WithLabelValues(outcome(err)).Inc()
	event := gateway.AuditEvent{Action: gateway.AuditOpen, Principal: who.principal(), Package: &id}
	if auditErr := p.audit(r, event, err); auditErr != nil {
		if out != nil {
			_ = out.head.Close() // a reader
		}
		return auditErr
	}
	if err != nil {
		return err
	}
	defer func() { _ = out.head.Close() }() // a reader
	return p.writeOpened(w, out)
}

// tryOpen does everything that can fail before a byte is sent.
func (p *portal) tryOpen(ctx context.Context, who identity, id gateway.PackageID, proof string) (*opened, error) {
	pkg, err := p.proven(ctx, id, proof)
	if err != nil {
		return nil, err
	}
	now, err := p.store.Now(ctx)
	if err != nil {
		return nil, err
	}
	if err := mayOpen(pkg, now); err != nil {
		return nil, err
	}
	object, err := p.store.ObjectOf(ctx, id, pkg.Head)
	if err != nil {
		return nil, gateway.Errorf(gateway.CodeInternal, err, "The list of this package's files is missing.")
	}
	out := &opened{
		secret: pkg.ServerSecret, scan: warning(pkg.Scan), size: object.Size,
		grant: rand.Text(), expires: now.Add(p.opts.GrantLifetime),
	}
	if err := p.store.AddGrant(ctx, sha256.Sum256([]byte(out.grant)), who.hash, id, out.expires); err != nil {
		return nil, fmt.Errorf("store the grant: %w", err)
	}
	if out.head, err = p.blobs.Get(ctx, object.Name, 0, object.Size); err != nil {
		return nil, blobError(err)
	}
	return out, nil
}

// proven returns the package if proof shows that its keycode is known. A package that does not exist
// costs the same comparison against a hash that nothing has.
func (p *portal) proven(ctx context.Context, id gateway.PackageID, proof string) (gateway.Package, error) {
	pkg, err := p.store.Package(ctx, id)
	if err != nil && gateway.ErrorCode(err) != gateway.CodeNotFound {
		return gateway.Package{}, err
	}
	raw, decodeErr := base64.RawURLEncoding.Strict().DecodeString(proof)
	hash := sha256.Sum256(raw)
	same := subtle.ConstantTimeCompare(hash[:], pkg.ProofHash[:]) == 1
	if err != nil || decodeErr != nil || len(raw) != sha256.Size || !same {
		return gateway.Package{}, errNotFound
	}
	return pkg, nil
}

// mayOpen tells the true state of a package to someone who has proven to hold its keycode. Rights are
// those of the placements: every agent may open what is placed in a route.
func mayOpen(pkg gateway.Package, now time.Time) error {
	switch {
	case pkg.State == gateway.PackageErased:
		return errExpired
	case pkg.State == gateway.PackageRevoked:
		return gateway.Errorf(gateway.CodeRevoked, nil, "This package has been revoked.")
	case pkg.State == gateway.PackageArriving:
		return gateway.Errorf(gateway.CodeArriving, nil, "This package is still arriving. Try again shortly.")
	case !now.Before(pkg.Expires):
		return errExpired
	}
	allowed := slices.ContainsFunc(pkg.Placements, func(at gateway.Placement) bool {
		return at.Kind == gateway.PlacementRoute && now.Before(at.Expires)
	})
	if !allowed {
		return gateway.Errorf(gateway.CodeForbidden, nil, "You may not open this package.")
	}
	return nil
}

var errExpired = gateway.Errorf(gateway.CodeExpired, nil, "This package has expired.")

// writeOpened streams the reply, since a head that lists thousands of files is large. The length is
// declared, so a head that cannot be read to its end breaks the connection.
func (p *portal) writeOpened(w http.ResponseWriter, out *opened) error {
	front, err := json.Marshal(struct {
		ServerSecret string     `json:"server_secret"`
		Grant        string     `json:"grant"`
		Expires      time.Time  `json:"expires"`
		Scan         *scanReply `json:"scan,omitempty"`
		Direct       bool       `json:"direct,omitempty"`
	}{out.secret.Reveal(), out.grant, out.expires, out.scan, p.opts.Direct != nil})
	if err != nil {
		return fmt.Errorf("encode the reply: %w", err)
	}
	before := string(front[:len(front)-1]) + `,"head":"`
	const after = `"}` + "\n"
	length := int64(len(before)) + (out.size+2)/3*4 + int64(len(after))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))

	body := renewDeadline(w)
	if _, err := io.WriteString(body, before); err != nil {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	encoder := base64.NewEncoder(base64.StdEncoding, body)
	if err := copyExactly(encoder, out.head, out.size); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	if _, err := io.WriteString(body, after); err != nil {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	return nil
}
