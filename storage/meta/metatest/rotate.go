package metatest

import (
	"context"
	"slices"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

func rotationSuite() map[string]func(*testing.T, *world) {
	return map[string]func(*testing.T, *world){
		"RotateKeys":            rotateKeys,
		"RotateWithAnotherNode": rotateWithAnotherNode,
		"RewrapGoesOn":          rewrapGoesOn,
		"PruneKeys":             pruneKeys,
		"ReplaceHead":           replaceHead,
		"Settings":              settings,
	}
}

// newKey adds a key to the keyring and makes it the one that wraps.
func (w *world) newKey(t *testing.T) string {
	t.Helper()
	if _, err := w.CurrentKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, w.keys.AddKey())
	must(t, w.UseKey(t.Context(), w.keys.ActiveKey(), admin()))
	return w.keys.ActiveKey()
}

func (w *world) rewrap(t *testing.T) int {
	t.Helper()
	n, err := w.Rewrap(t.Context(), admin(), nil)
	must(t, err)
	return n
}

// reads fails if the mail or its package cannot be read.
func (w *world) reads(t *testing.T, s *meta.Store, m gateway.AcceptedMail) {
	t.Helper()
	p, err := s.Package(t.Context(), m.ID)
	if err != nil || !p.ServerSecret.Equal(m.Package.ServerSecret) {
		t.Errorf("the package reads otherwise: %v", err)
	}
	leased, err := LeaseAny(t.Context(), s, "reader", 1000, time.Minute)
	if err != nil {
		t.Error(err)
	}
	for _, l := range leased {
		must(t, s.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{
			Attempt: gateway.Attempt{Event: gateway.EventDeferred, Code: 450}, Next: w.clock.Now(),
		}))
	}
	if !slices.ContainsFunc(leased, func(l gateway.LeasedDelivery) bool {
		return l.Mail == m.ID && slices.Equal(l.Copy.Inline, m.Copy.Inline)
	}) {
		t.Errorf("the waiting mail is not among %d that can be read", len(leased))
	}
}

// rotateKeys: all that one key wrapped is wrapped by the next, twice, over many pages, and reads without the former.
func rotateKeys(t *testing.T, w *world) {
	first := w.keys.WrappingKey()
	var mails []gateway.AcceptedMail
	for range 150 {
		mails = append(mails, w.commit(t, 1))
	}
	for turn := range 2 {
		if known, err := w.IsKnownKey(t.Context(), w.keys.WrappingKey()); err != nil || known != (turn > 0) {
			t.Errorf("turn %d: the first key is known before it is named: %v, %v", turn, known, err)
		}
		id := w.newKey(t)
		var seen, total int64
		n, err := w.Rewrap(t.Context(), admin(), func(done, all int64) { seen, total = done, all })
		if err != nil || n < 5*len(mails) || seen != total || total == 0 {
			t.Errorf("turn %d: %d values were wrapped anew, %v; %d of %d rows seen", turn, n, err, seen, total)
		}
		if again := w.rewrap(t); again != 0 {
			t.Errorf("turn %d: %d values were done twice", turn, again)
		}
		current, err := w.CurrentKey(t.Context())
		if err != nil || current.ID != id || !current.Rewrapped || !current.Since.Equal(w.clock.Now().Truncate(time.Microsecond)) {
			t.Errorf("turn %d: the current key is %+v, %v", turn, current, err)
		}
		w.keys.Forget(first)
		first = id
		w.reads(t, w.Store, mails[0])
		w.reads(t, w.open(t, w.keys, w.clock.Now), mails[149])
	}
	events, err := w.ListAudit(t.Context(), nil, 100)
	must(t, err)
	count := map[gateway.AuditAction]int{}
	for _, e := range events {
		count[e.Action]++
	}
	if count[gateway.AuditKeyUsed] != 2 || count[gateway.AuditRewrapped] != 2 {
		t.Errorf("audited: %v", count)
	}
}

// rotateWithAnotherNode: no key is used that a running node does not have, and the node takes it up with its next beat.
func rotateWithAnotherNode(t *testing.T, w *world) {
	ctx := t.Context()
	theirs := w.keys.Node()
	other := w.open(t, theirs, w.clock.Now)
	must(t, other.Beat(ctx))
	old := w.keys.WrappingKey()
	must(t, w.keys.AddKey())
	id := w.keys.ActiveKey()
	if err := w.UseKey(ctx, id, admin()); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("the other node does not have it: %v", err)
	}
	late := func(what string, want meta.Laggards) {
		t.Helper()
		if got, err := w.Laggards(ctx, id); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	late("before it has it", meta.Laggards{Without: 1, Other: 1})
	must(t, other.Beat(ctx)) // its file is the new one by now
	late("before it is used", meta.Laggards{Other: 1})
	must(t, w.UseKey(ctx, id, admin()))
	if theirs.WrappingKey() != old {
		t.Error("it was taken up before the beat")
	}
	fromOther := NewMail(w.clock.Now(), mustKey(t, other, w), Routes(1)...)
	must(t, other.CommitMail(ctx, fromOther))
	w.reads(t, w.Store, fromOther)
	must(t, other.Beat(ctx))
	late("after the beat", meta.Laggards{})
	if theirs.WrappingKey() != id {
		t.Errorf("the other node wraps by %s", theirs.WrappingKey())
	}
	w.rewrap(t)
	w.reads(t, other, fromOther)
	if err := w.UseKey(ctx, old, admin()); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("back to a former key: %v", err)
	}
}

// rewrapGoesOn: broken off, it goes on where it was; what cannot be read is told, and keeps the former key.
func rewrapGoesOn(t *testing.T, w *world) {
	m := w.commit(t, 1)
	for range 100 {
		w.commit(t, 1)
	}
	old := w.keys.WrappingKey()
	id := w.newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	first, err := w.Rewrap(ctx, admin(), func(done, _ int64) {
		if done > 100 {
			cancel()
		}
	})
	if err == nil || first == 0 {
		t.Fatalf("broken off after %d values: %v", first, err)
	}
	if current, err := w.CurrentKey(t.Context()); err != nil || current.ID != id || current.Rewrapped {
		t.Errorf("broken off, the key is %+v, %v", current, err)
	}
	must(t, w.keys.AddKey())
	if err := w.UseKey(t.Context(), w.keys.ActiveKey(), admin()); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("a second change in the middle of the first: %v", err)
	}
	w.reads(t, w.Store, m)

	lost := w.keys.Node() // one that lacks the former key
	lost.Source = nil
	lost.Forget(old)
	if n, err := w.open(t, lost, w.clock.Now).Rewrap(t.Context(), admin(), nil); err == nil || n != 0 {
		t.Errorf("without the former key: %d, %v", n, err)
	}
	if current, err := w.CurrentKey(t.Context()); err != nil || current.Rewrapped {
		t.Errorf("what cannot be read counts as done: %+v, %v", current, err)
	}
	if second := w.rewrap(t); second == 0 {
		t.Error("nothing was left to do")
	}
	w.keys.Forget(old)
	w.reads(t, w.Store, m)
}

// pruneKeys: a former key goes only when nothing is wrapped by it and no process can be using it any more.
func pruneKeys(t *testing.T, w *world) {
	refused := func(what string) {
		t.Helper()
		if err := w.MayPrune(t.Context(), nil); gateway.ErrorCode(err) != gateway.CodeConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := w.open(t, w.keys.Node(), w.clock.Now)
	must(t, other.Beat(t.Context()))
	w.commit(t, 1)
	must(t, w.keys.AddKey())
	must(t, other.Beat(t.Context()))
	must(t, w.UseKey(t.Context(), w.keys.ActiveKey(), admin()))
	refused("before all is wrapped anew")
	w.rewrap(t)
	must(t, other.CommitMail(t.Context(), NewMail(w.clock.Now(), mustKey(t, other, w), Routes(1)...)))
	w.clock.Add(30 * time.Second)
	refused("another node wraps by the former")
	w.clock.Add(31 * time.Second)
	refused("a silent node may do so for an hour")
	w.clock.Add(2 * time.Hour)
	refused("a mail came by the former")
	if n := w.rewrap(t); n == 0 {
		t.Error("that mail was not wrapped anew")
	}
	must(t, w.MayPrune(t.Context(), nil))
}

func mustKey(t *testing.T, s *meta.Store, w *world) gateway.QueueKey {
	t.Helper()
	key, err := s.QueueKey(t.Context(), w.clock.Now())
	must(t, err)
	return key
}

// replaceHead: the new head is the package's, the old one garbage; only from the head that it has.
func replaceHead(t *testing.T, w *world) {
	ctx := t.Context()
	var all []gateway.AcceptedMail
	for range 5 {
		all = append(all, w.commit(t, 1))
	}
	m := all[2]
	fresh := gateway.Object{Name: m.Package.Head + "2", Item: m.Package.Objects[0].Item, Size: 777}
	if err := w.ReplaceHead(ctx, m.ID, "another", fresh); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("from a head that it does not have: %v", err)
	}
	must(t, w.ReplaceHead(ctx, m.ID, m.Package.Head, fresh))
	p, err := w.Package(ctx, m.ID)
	must(t, err)
	i := slices.IndexFunc(p.Objects, func(o gateway.Object) bool { return o.Name == fresh.Name })
	j := slices.IndexFunc(m.Package.Objects, func(o gateway.Object) bool { return o.Name == m.Package.Head })
	if p.Head != fresh.Name || i != j || p.Objects[i].Size != 777 || p.Objects[i].Item != m.Package.Objects[j].Item || len(p.Objects) != len(m.Package.Objects) {
		t.Errorf("head %s, objects %+v", p.Head, p.Objects)
	}
	if garbage, err := w.Garbage(ctx, 10); err != nil || !slices.Equal(garbage, []string{m.Package.Head}) {
		t.Errorf("garbage %v, %v", garbage, err)
	}
	if err := w.ReplaceHead(ctx, m.ID, m.Package.Head, fresh); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("twice: %v", err)
	}
	w.listsHeads(t, all, fresh.Name)

	w.clock.Add(400 * 24 * time.Hour) // its mail waits no longer than that
	must(t, w.dropAll(t))
	if n, err := w.ExpirePackages(ctx, 10); err != nil || n != len(all) {
		t.Fatalf("%d expired, %v", n, err)
	}
	if err := w.ReplaceHead(ctx, m.ID, fresh.Name, gateway.Object{Name: fresh.Name + "3"}); gateway.ErrorCode(err) != gateway.CodeConflict {
		t.Errorf("of an erased package: %v", err)
	}
	if heads, err := w.Heads(ctx, nil, 10); err != nil || len(heads) != 0 {
		t.Errorf("heads of erased packages: %v, %v", heads, err)
	}
}

// dropAll drops all that waits.
func (w *world) dropAll(t *testing.T) error {
	waiting, err := w.ListDeliveries(t.Context(), meta.DeliveryFilter{Limit: 100})
	for _, d := range waiting {
		if err == nil {
			err = w.ApplyEvent(t.Context(), d.ID, gateway.EventDrop, admin(), gateway.NewSecret("a test"))
		}
	}
	return err
}

// listsHeads reads the heads in pages of two.
func (w *world) listsHeads(t *testing.T, all []gateway.AcceptedMail, want string) {
	t.Helper()
	if n, err := w.CountHeads(t.Context()); err != nil || n != int64(len(all)) {
		t.Errorf("%d heads, %v", n, err)
	}
	seen := map[gateway.PackageID]string{}
	var after *gateway.PackageID
	for {
		heads, err := w.Heads(t.Context(), after, 2)
		must(t, err)
		if len(heads) == 0 {
			break
		}
		for _, h := range heads {
			seen[h.Package] = h.Name
			after = &h.Package
		}
	}
	if len(seen) != len(all) || seen[all[2].ID] != want || seen[all[0].ID] != all[0].Package.Head {
		t.Errorf("heads: %v", seen)
	}
}

// settings: what one node says, another reads.
func settings(t *testing.T, w *world) {
	if value, err := w.Setting(t.Context(), "x"); err != nil || value != "" {
		t.Errorf("unset: %q, %v", value, err)
	}
	for _, want := range []string{"one", "two"} {
		must(t, w.SetSetting(t.Context(), "x", want))
		if value, err := w.otherNode(t).Setting(t.Context(), "x"); err != nil || value != want {
			t.Errorf("%q, %v", value, err)
		}
	}
}
