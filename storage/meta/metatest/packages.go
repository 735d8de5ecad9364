package metatest

import (
	"crypto/sha256"
	"reflect"
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
)

func packageRoundTrip(t *testing.T, w *world) {
	m := w.mail(t, 2)
	m.Package.Placements[1].CaseRef = "500000000000001"
	must(t, w.CommitMail(t.Context(), m))
	p, err := w.Package(t.Context(), m.ID)
	must(t, err)
	if !p.ServerSecret.Equal(m.Package.ServerSecret) {
		t.Error("the server secret is altered")
	}
	if !reflect.DeepEqual(p, *m.Package) {
		t.Errorf("package %+v, want %+v", p, *m.Package)
	}
	for _, want := range m.Package.Objects {
		got, err := w.ObjectOf(t.Context(), m.ID, want.Name)
		if err != nil || got != want {
			t.Errorf("object %+v, %v; want %+v", got, err, want)
		}
	}
	other := w.commit(t, 1)
	_, err = w.ObjectOf(t.Context(), other.ID, m.Package.Head)
	wantCode(t, "another package's object", err, gateway.CodeNotFound)
	_, err = w.Package(t.Context(), gateway.NewPackageID())
	wantCode(t, "unknown package", err, gateway.CodeNotFound)
}

func expirePackages(t *testing.T, w *world) {
	m := w.commit(t, 1)
	must(t, w.AddGrant(t.Context(), [32]byte{1}, [32]byte{2}, m.ID, w.clock.Now().Add(1000*24*time.Hour)))
	w.clock.Add(365*24*time.Hour - time.Microsecond)
	young := w.mail(t, 1)
	young.Package.Expires = w.clock.Now().Add(time.Hour)
	must(t, w.CommitMail(t.Context(), young))
	if n, err := w.ExpirePackages(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("%d packages expired, %v; want none", n, err)
	}
	w.clock.Add(time.Microsecond)
	if n, err := w.ExpirePackages(t.Context(), 10); err != nil || n != 0 {
		t.Errorf("%d packages expired whose mail still waits, %v", n, err)
	}
	w.finish(t, w.leaseOne(t), gateway.EventAccepted, false)
	late := w.clock.Now().Add(7 * 24 * time.Hour)
	if p, err := w.Package(t.Context(), m.ID); err != nil || !p.Expires.Equal(late) || !p.Placements[0].Expires.Equal(late) {
		t.Errorf("a package that was delivered late expires %v, want %v (%v)", p.Expires, late, err)
	}
	w.clock.Add(7 * 24 * time.Hour)
	for want := range []int{1, 0} {
		if n, err := w.ExpirePackages(t.Context(), 10); err != nil || n != 1-want {
			t.Errorf("%d packages expired, %v; want %d", n, err, 1-want)
		}
	}
	p, err := w.Package(t.Context(), m.ID)
	must(t, err)
	if p.State != gateway.PackageErased || !p.ServerSecret.IsZero() || p.ProofHash != sha256.Sum256(p.ID[:]) || len(p.Objects)+len(p.Items) != 0 {
		t.Errorf("an erased package has %+v", p)
	}
	var names []string
	for _, o := range m.Package.Objects {
		names = append(names, o.Name)
	}
	garbage, err := w.Garbage(t.Context(), 10)
	slices.Sort(names)
	slices.Sort(garbage)
	if err != nil || !slices.Equal(garbage, names) {
		t.Errorf("garbage %v, %v; want %v", garbage, err, names)
	}
	_, err = w.Grant(t.Context(), [32]byte{1})
	wantCode(t, "a grant for an erased package", err, gateway.CodeNotFound)
	events, err := w.ListAudit(t.Context(), &m.ID, 10)
	if err != nil || len(events) != 1 || events[0].Action != gateway.AuditExpire || events[0].Principal.Kind != gateway.PrincipalSystem {
		t.Errorf("audit %v, %v", events, err)
	}
	if p, err := w.Package(t.Context(), young.ID); err != nil || p.State != gateway.PackageAvailable || len(p.Objects) != 3 {
		t.Errorf("a package that has not expired: %+v, %v", p, err)
	}
	if !w.hasCopy(t, young.ID) {
		t.Error("a mail that waits lost its copy")
	}
}

func garbage(t *testing.T, w *world) {
	m, queued := w.commit(t, 1), w.mail(t, 1)
	queued.Copy.Inline, queued.Copy.Object = nil, "20260314/"+queued.ID.String()+".q.0000000000000009"
	must(t, w.CommitMail(t.Context(), queued))
	names := []string{m.Package.Head, m.Package.Objects[0].Name, queued.Copy.Object, "20260314/stranger"}
	referenced, err := w.Referenced(t.Context(), names)
	must(t, err)
	for i, name := range names {
		if is, ok := referenced[name]; !ok || is != (i < 3) {
			t.Errorf("%s is referenced: %v, %v", name, is, ok)
		}
	}
	for _, d := range w.deliveries(t, queued.ID) {
		must(t, w.ApplyEvent(t.Context(), d.ID, gateway.EventDrop, admin(), because()))
	}
	w.clock.Add(time.Second)
	for _, d := range w.deliveries(t, m.ID) {
		must(t, w.ApplyEvent(t.Context(), d.ID, gateway.EventDrop, admin(), because()))
	}
	w.clock.Add(400 * 24 * time.Hour)
	_, err = w.ExpirePackages(t.Context(), 10)
	must(t, err)
	all, err := w.Garbage(t.Context(), 100)
	must(t, err)
	if len(all) != 7 || all[0] != queued.Copy.Object {
		t.Fatalf("garbage %v, want the queued mail's object first", all)
	}
	if some, err := w.Garbage(t.Context(), 2); err != nil || !slices.Equal(some, all[:2]) {
		t.Errorf("garbage %v, %v; want %v", some, err, all[:2])
	}
	referenced, err = w.Referenced(t.Context(), names)
	if err != nil || referenced[names[0]] || referenced[names[2]] {
		t.Errorf("garbage is referenced: %v, %v", referenced, err)
	}
	must(t, w.ForgetGarbage(t.Context(), all[:5]))
	must(t, w.ForgetGarbage(t.Context(), all[:5]))
	if left, err := w.Garbage(t.Context(), 100); err != nil || !slices.Equal(left, all[5:]) {
		t.Errorf("garbage %v, %v; want %v", left, err, all[5:])
	}
	must(t, w.Checkpoint(t.Context()))
}

func audit(t *testing.T, w *world) {
	pkg := gateway.NewPackageID()
	open := gateway.AuditEvent{
		At: w.clock.Now().Add(-time.Hour), Principal: gateway.Principal{Kind: gateway.PrincipalAgent, ID: "0123"},
		Action: gateway.AuditOpen, Package: &pkg, Client: gateway.NewSecret("192.0.2.1"), Outcome: "ok",
	}
	login := gateway.AuditEvent{
		Principal: gateway.Principal{Kind: gateway.PrincipalAgent}, Action: gateway.AuditLogin, Outcome: "unauthenticated",
	}
	must(t, w.Audit(t.Context(), open))
	must(t, w.Audit(t.Context(), login))
	login.At = w.clock.Now() // the database's
	all, err := w.ListAudit(t.Context(), nil, 10)
	if err != nil || !reflect.DeepEqual(all, []gateway.AuditEvent{login, open}) {
		t.Errorf("audit %+v, %v; want %+v", all, err, []gateway.AuditEvent{login, open})
	}
	if all, err = w.ListAudit(t.Context(), nil, 1); err != nil || len(all) != 1 || all[0].Action != gateway.AuditLogin {
		t.Errorf("audit %+v, %v", all, err)
	}
	if all, err = w.ListAudit(t.Context(), &pkg, 10); err != nil || len(all) != 1 || *all[0].Package != pkg {
		t.Errorf("audit of a package %+v, %v", all, err)
	}
}

func otherKeyring(t *testing.T, w *world) {
	m := w.commit(t, 1)
	other := w.open(t, NewKeys(), w.clock.Now)
	if _, err := other.Package(t.Context(), m.ID); err == nil {
		t.Error("another keyring opens the server secret")
	}
	if _, err := other.QueueKey(t.Context(), w.clock.Now()); err == nil {
		t.Error("another keyring opens the queue key")
	}
	if _, err := other.Mail(t.Context(), m.ID); err == nil {
		t.Error("another keyring opens the correspondents")
	}
}
