package intake

import (
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/rewrite"
)

// pack describes what was sealed to the database; nil when nothing was.
func (t *transaction) pack() *gateway.Package {
	if t.sealed == nil {
		return nil
	}
	pack := &gateway.Package{
		ID: t.id, Source: gateway.SourceMail, State: gateway.PackageAvailable,
		Created: t.started, Expires: t.expires(),
		ServerSecret: gateway.NewSecret(t.sealed.ServerSecret.Reveal()),
		ProofHash:    t.sealed.ProofHash,
		Head:         t.sealed.Head,
		Scan:         t.virus,
	}
	for _, item := range t.sealed.Items {
		pack.Items = append(pack.Items, gateway.Item(item))
	}
	for _, object := range t.sealed.Objects {
		pack.Objects = append(pack.Objects, gateway.Object(object))
	}
	for _, d := range t.deliveries {
		pack.Placements = append(pack.Placements, gateway.Placement{
			Kind: gateway.PlacementRoute, Place: d.Route.Address, Expires: t.started.Add(d.Route.ExpireAfter),
		})
	}
	return pack
}

// expires is when the last of the placements ends.
func (t *transaction) expires() time.Time {
	var last time.Time
	for _, d := range t.deliveries {
		if end := t.started.Add(d.Route.ExpireAfter); end.After(last) {
			last = end
		}
	}
	return last
}

// firstRoute is the route whose portal and language the mail's notice has.
func (t *transaction) firstRoute() gateway.Route { return t.envelope.Recipients[0].Route }

// emptyNotice is a notice that knows of no file yet.
func (t *transaction) emptyNotice(link crypto.Link) rewrite.Notice {
	return rewrite.Notice{
		Link: link.Reveal(), ShowNames: t.options.ShowFilenames, Expires: t.expires(), Language: t.firstRoute().NoticeLanguage,
		Place: t.options.NoticePlace, Template: t.options.NoticeTemplate,
	}
}

// notice is what the mail says of the files that were taken out.
func (t *transaction) notice() rewrite.Notice {
	if t.sealed == nil {
		return rewrite.Notice{}
	}
	notice := t.emptyNotice(crypto.Link{Portal: t.firstRoute().PortalURL, ID: crypto.ID(t.id), Keycode: t.sealed.Keycode})
	for i, item := range t.plan.Items() {
		notice.Files = append(notice.Files, rewrite.File{Name: item.Name, Size: t.sealed.Items[i].Size})
	}
	return notice
}
