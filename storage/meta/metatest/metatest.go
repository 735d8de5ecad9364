// Package metatest is the suite that every database of package meta has to pass, and what tests elsewhere need
// to fill one.
package metatest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sealpost/gateway"
	"sealpost/storage/meta"
)

// Open opens one database again and again, as the nodes of one installation do, and closes it by t.Cleanup.
type Open func(t *testing.T, keys meta.Wrapper, now func() time.Time) *meta.Store

// Run runs the suite. fresh makes a new, empty database for each call.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	t.Helper()
	tests := suite()
	maps.Copy(tests, rotationSuite())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := &world{open: fresh(t), keys: NewKeys(), clock: NewClock()}
			w.Store = w.open(t, w.keys, w.clock.Now)
			test(t, w)
		})
	}
}

func suite() map[string]func(*testing.T, *world) {
	return map[string]func(*testing.T, *world){
		"CommitMail":               commitMail,
		"CommitWithoutPackage":     commitWithoutPackage,
		"CommitIsAllOrNothing":     commitAllOrNothing,
		"CommitRefusesOldIntake":   commitOneHour,
		"CommitWithoutQueueKey":    commitWithoutQueueKey,
		"QueueKeyOfTheDay":         queueKeyOfTheDay,
		"QueueKeyIsDestroyed":      queueKeyIsDestroyed,
		"LeaseInOrder":             leaseInOrder,
		"LeaseCopy":                leaseCopy,
		"LeaseIsFenced":            leaseIsFenced,
		"LeaseRunsOut":             leaseRunsOut,
		"LostLeasesBackOff":        lostLeasesBackOff,
		"LostLeasesGiveUp":         lostLeasesGiveUp,
		"LeaseOfALiveOwner":        leaseOfALiveOwner,
		"HopIsKept":                hopIsKept,
		"DeadReturns":              deadReturns,
		"DeadReturnsAndAdmins":     deadReturnsAndAdmins,
		"RepeatsOfALiveNode":       repeatsOfALiveNode,
		"ClaimWork":                claimWork,
		"ClaimWorkRace":            claimWorkRace,
		"LeaseRenewed":             leaseRenewed,
		"LeaseRace":                leaseRace,
		"LeaseUnreadableCopy":      leaseUnreadableCopy,
		"Due":                      due,
		"ReturnLanes":              returnLanes,
		"ToldAnewAfterRetry":       toldAnewAfterRetry,
		"LostNotice":               lostNotice,
		"ClaimAlertRace":           claimAlertRace,
		"DropSaysWhoAndWhy":        dropSaysWhoAndWhy,
		"Mail world":               mailWorld,
		"Repeats":                  repeats,
		"Refusals":                 refusals,
		"Alerts":                   alerts,
		"Wake":                     wake,
		"FinishAttempt":            finishAttempt,
		"DeliveryStates":           deliveryStates,
		"ListDeliveries":           listDeliveries,
		"Mail":                     mail,
		"ApplyEvent":               applyEvent,
		"EndReplayWindows":         endReplayWindows,
		"Package":                  packageRoundTrip,
		"ExpirePackages":           expirePackages,
		"KeepWatch":                keepWatch,
		"ExpireMails":              expireMails,
		"Garbage":                  garbage,
		"Agents":                   agents,
		"AgentChangesEndSessions":  agentChangesEndSessions,
		"Sessions":                 sessions,
		"SessionManager":           sessionManager,
		"Grants":                   grants,
		"LoginFailures":            loginFailures,
		"Audit":                    audit,
		"CancelledContext":         cancelledContext,
		"ReopenedWithOtherKeyring": otherKeyring,
	}
}

// world is one database and what is around it.
type world struct {
	*meta.Store
	open  Open
	keys  *Keys
	clock *Clock
}

// Clock is a clock that stands still until it is moved.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at noon of a day in 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 14, 12, 0, 0, 123456000, time.UTC)} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Routes returns n routes.
func Routes(n int) []gateway.Route {
	routes := make([]gateway.Route, n)
	for i := range routes {
		routes[i] = gateway.Route{
			Address:     fmt.Sprintf("support%d@example.com", i),
			ForwardTo:   fmt.Sprintf("support@x-%d.case.example", i),
			ExpireAfter: 365 * 24 * time.Hour,
		}
	}
	return routes
}

// NewMail returns a mail with a package of two items that may be committed at now.
func NewMail(now time.Time, key gateway.QueueKey, routes ...gateway.Route) gateway.AcceptedMail {
	id := gateway.NewPackageID()
	day := now.Format("20060102")
	head := fmt.Sprintf("%s/%s.h.1.0000000000000001", day, id)
	first := fmt.Sprintf("%s/%s.s.0000000000000002", day, id)
	second := fmt.Sprintf("%s/%s.s.0000000000000003", day, id)
	m := gateway.AcceptedMail{
		ID: id, Started: now, MessageID: gateway.NewSecret("<" + id.String() + "@client.example>"),
		Envelope: gateway.Envelope{
			MailFrom: "anna.marker@client.example", Client: netip.MustParseAddr("192.0.2.77"), Received: now,
		},
		Copy: gateway.QueuedMail{
			ID: id, MailFrom: gateway.NewSecret("anna.marker@client.example"), Key: key,
			Inline: []byte("copy-marker " + id.String()), Size: 5000, EightBit: true, UTF8: true,
		},
		Package: &gateway.Package{
			ID: id, Source: gateway.SourceMail, State: gateway.PackageAvailable,
			Created: now, Expires: now.Add(365 * 24 * time.Hour),
			ServerSecret: gateway.NewSecret("server-secret-marker-" + id.String()),
			ProofHash:    sha256.Sum256(id[:]), Head: head,
			Objects: []gateway.Object{
				{Name: first, Item: 0, Size: 1000}, {Name: second, Item: 1, Size: 2000},
				{Name: head, Item: gateway.HeadObject, Size: 900},
			},
			Items: []gateway.Item{{Ordinal: 0, Size: 900, Segments: 1}, {Ordinal: 1, Size: 1900, Segments: 1}},
		},
	}
	for _, route := range routes {
		m.Deliveries = append(m.Deliveries, gateway.NewDelivery{Route: route})
		m.Envelope.Recipients = append(m.Envelope.Recipients, gateway.Recipient{Address: route.Address, Route: route})
		m.Package.Placements = append(m.Package.Placements, gateway.Placement{
			Kind: gateway.PlacementRoute, Place: route.Address, Expires: m.Package.Expires,
		})
	}
	return m
}

// mail makes a mail to n routes; commit commits it too.
func (w *world) mail(t *testing.T, n int) gateway.AcceptedMail {
	t.Helper()
	key, err := w.QueueKey(t.Context(), w.clock.Now())
	must(t, err)
	return NewMail(w.clock.Now(), key, Routes(n)...)
}

func (w *world) commit(t *testing.T, n int) gateway.AcceptedMail {
	t.Helper()
	m := w.mail(t, n)
	must(t, w.CommitMail(t.Context(), m))
	return m
}

func (w *world) lease(t *testing.T, limit int) []gateway.LeasedDelivery {
	t.Helper()
	leased, err := LeaseAny(t.Context(), w.Store, "node", limit, time.Minute)
	must(t, err)
	return leased
}

// otherNode opens the database as another process has it.
func (w *world) otherNode(t *testing.T) *meta.Store {
	t.Helper()
	return w.open(t, w.keys, w.clock.Now)
}

// lose leases everything that is due on another node, which then dies.
func (w *world) lose(t *testing.T) []gateway.LeasedDelivery {
	t.Helper()
	leased, err := LeaseAny(t.Context(), w.otherNode(t), "a node that died", 1000, time.Minute)
	must(t, err)
	return leased
}

// LeaseAny leases from one lane after the other, as a relay does. An error may come beside deliveries.
func LeaseAny(ctx context.Context, store *meta.Store, owner string, limit int, ttl time.Duration) ([]gateway.LeasedDelivery, error) {
	due, err := store.Due(ctx)
	if err != nil {
		return nil, err
	}
	var all []gateway.LeasedDelivery
	var errs []error
	for _, d := range due {
		if len(all) == limit {
			break
		}
		leased, err := store.LeaseDeliveries(ctx, owner, d.Lane, limit-len(all), ttl)
		errs = append(errs, err)
		all = append(all, leased...)
	}
	return all, errors.Join(errs...)
}

// because is why an admin does something.
func because() gateway.Secret { return gateway.NewSecret("reason-marker") }

func (w *world) leaseOne(t *testing.T) gateway.LeasedDelivery {
	t.Helper()
	leased := w.lease(t, 1)
	if len(leased) != 1 {
		t.Fatalf("%d deliveries were leased, want 1", len(leased))
	}
	return leased[0]
}

func (w *world) finish(t *testing.T, l gateway.LeasedDelivery, event gateway.DeliveryEvent, awaitCase bool) {
	t.Helper()
	must(t, w.FinishAttempt(t.Context(), l.Lease, gateway.AttemptResult{Attempt: w.attempt(event), Next: w.clock.Now().Add(time.Minute), AwaitCase: awaitCase}))
}

func (w *world) attempt(event gateway.DeliveryEvent) gateway.Attempt {
	return gateway.Attempt{
		Started: w.clock.Now(), Ended: w.clock.Now().Add(time.Second), Hop: "mx.example:25", Event: event,
		Code: 250, Reply: gateway.NewSecret("reply-marker"), TLS: "TLS1.3",
	}
}

// deliveries returns those of a mail.
func (w *world) deliveries(t *testing.T, id gateway.PackageID) []gateway.Delivery {
	t.Helper()
	all, err := w.ListDeliveries(t.Context(), meta.DeliveryFilter{Mail: id})
	must(t, err)
	return all
}

func (w *world) hasCopy(t *testing.T, id gateway.PackageID) bool {
	t.Helper()
	m, err := w.Mail(t.Context(), id)
	must(t, err)
	return m.HasCopy
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, code gateway.Code) {
	t.Helper()
	if got := gateway.ErrorCode(err); got != code {
		t.Errorf("%s: code %q (%v), want %q", what, got, err, code)
	}
}

func admin() gateway.Principal {
	return gateway.Principal{Kind: gateway.PrincipalAdmin, Name: gateway.NewSecret("name-marker")}
}
