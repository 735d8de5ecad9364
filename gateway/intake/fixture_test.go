package intake_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
	"sealpost/gateway/spool"
	"sealpost/storage/blob"
)

const (
	hostname  = "mx.example.com"
	portalURL = "https://files.example.com"
	day       = 24 * time.Hour
)

// clock is the database's time in the tests.
func clock() time.Time { return time.Date(2026, 11, 24, 12, 30, 15, 0, time.UTC) }

// journal is the order of the calls that reach the blob store and the database.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// Write makes a journal of log lines.
func (j *journal) Write(line []byte) (int, error) {
	j.add(string(line))
	return len(line), nil
}

func (j *journal) calls() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// watchedBlobs writes down what is asked of a store, and fails where a test wants it to.
type watchedBlobs struct {
	blob.Store
	journal  *journal
	mu       sync.Mutex
	puts     int
	onPut    func(ctx context.Context, n int, body io.Reader) error // n counts from 1
	onCommit func() error
	onDelete func(name string) error
}

func (w *watchedBlobs) Put(ctx context.Context, name string, body io.Reader) (int64, error) {
	w.mu.Lock()
	w.puts++
	n := w.puts
	w.mu.Unlock()
	if w.onPut != nil {
		if err := w.onPut(ctx, n, body); err != nil {
			return 0, err
		}
	}
	size, err := w.Store.Put(ctx, name, body)
	if err == nil {
		w.journal.add("put " + name)
	}
	return size, err
}

func (w *watchedBlobs) Commit(ctx context.Context, names ...string) error {
	if w.onCommit != nil {
		if err := w.onCommit(); err != nil {
			return err
		}
	}
	w.journal.add("durable " + strings.Join(names, " "))
	return w.Store.Commit(ctx, names...)
}

func (w *watchedBlobs) Delete(ctx context.Context, name string) error {
	if w.onDelete != nil {
		if err := w.onDelete(name); err != nil {
			return err
		}
	}
	w.journal.add("delete " + name)
	return w.Store.Delete(ctx, name)
}

// database is an intake.Store that remembers what was committed.
type database struct {
	journal *journal
	key     gateway.QueueKey
	fail    map[string]error
	mu      sync.Mutex
	mails   []gateway.AcceptedMail
	lost    map[gateway.PackageID]bool

	refusals []gateway.Refusal
}

func (d *database) Now(context.Context) (time.Time, error) {
	d.journal.add("now")
	return clock(), d.fail["Now"]
}

func (d *database) QueueKey(_ context.Context, now time.Time) (gateway.QueueKey, error) {
	d.journal.add("queue key of " + now.Format("20060102"))
	return d.key, d.fail["QueueKey"]
}

func (d *database) CommitMail(_ context.Context, mail gateway.AcceptedMail) error {
	d.journal.add("commit mail")
	if err := d.fail["CommitMail"]; err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mails = append(d.mails, mail)
	return d.fail["CommitMail, unheard"]
}

func (d *database) Repeated(_ context.Context, fingerprint []byte) (gateway.PackageID, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, mail := range d.mails {
		if d.lost[mail.ID] && bytes.Equal(mail.Fingerprint, fingerprint) {
			return mail.ID, true, nil
		}
	}
	return gateway.PackageID{}, false, nil
}

func (d *database) SettleMail(id gateway.PackageID, heard bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == nil {
		d.lost = map[gateway.PackageID]bool{}
	}
	d.lost[id] = !heard
}

func (d *database) RecordRefusal(_ context.Context, refusal gateway.Refusal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refusals = append(d.refusals, refusal)
	return nil
}

// fixture is an intake with all that is around it.
type fixture struct {
	journal  *journal
	blobs    *watchedBlobs
	database *database
	registry *prometheus.Registry
	log      *bytes.Buffer
	spool    *spool.Spool
	signer   *crypto.VerifyKey
	intake   *intake.Intake
}

func newFixture(t testing.TB, change ...func(*intake.Options)) *fixture {
	t.Helper()
	keyring, err := crypto.NewKeyring(clock())
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := crypto.GenerateRecoveryKey(clock())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := crypto.NewSealer([]*crypto.RecoveryPublicKey{recovery.Public()}, keyring.SigningKey(), clock())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{journal: &journal{}, registry: prometheus.NewRegistry(), log: &bytes.Buffer{}, signer: keyring.VerifyKey()}
	f.database = &database{
		journal: f.journal, fail: map[string]error{},
		key: gateway.QueueKey{Day: "20261124", Key: gateway.NewSecret(string(crypto.NewQueueKey()))},
	}
	f.blobs = newBlobs(t, f.journal)
	if f.spool, err = spool.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	options := intake.Options{
		Hostname: hostname, ShowFilenames: true, Limits: rewrite.DefaultLimits(),
		Rules: rewrite.Rules{Judge: policy.Default().Judge}, Logger: slog.New(slog.NewJSONHandler(f.log, nil)), Metrics: f.registry,
	}
	for _, c := range change {
		c(&options)
	}
	f.intake = intake.New(options, sealer, f.blobs, f.database)
	return f
}

func newBlobs(t testing.TB, j *journal) *watchedBlobs {
	t.Helper()
	dir, err := blob.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &watchedBlobs{Store: dir, journal: j}
}

func route(address, forwardTo string, expireAfter time.Duration) gateway.Route {
	return gateway.Route{
		PortalURL: portalURL,
		Address:   address, ForwardTo: forwardTo, ExpireAfter: expireAfter,
		NextHop: gateway.NextHop{Host: "hop.example.net", Port: 25},
	}
}

func supportRoute() gateway.Route {
	return route("support@example.com", "support@x-1a2b3c.case.salesforce.com", 30*day)
}

// envelope is that of a mail to these routes, support's if there are none.
func envelope(routes ...gateway.Route) gateway.Envelope {
	if len(routes) == 0 {
		routes = []gateway.Route{supportRoute()}
	}
	e := gateway.Envelope{
		MailFrom: "ada@customer.example", Client: netip.MustParseAddr("192.0.2.7"), Hello: "mail.customer.example",
		Protocol: "ESMTPS", TLS: "TLS1.3", Received: time.Date(2026, 11, 24, 13, 30, 14, 0, time.FixedZone("", 3600)),
	}
	for _, r := range routes {
		e.Recipients = append(e.Recipients, gateway.Recipient{Address: strings.ToUpper(r.Address), Route: r})
	}
	return e
}

func (f *fixture) spooled(t testing.TB, mail string) gateway.Spooled {
	t.Helper()
	m := f.spool.New()
	if _, err := io.WriteString(m, mail); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// taken is one mail that was accepted.
type taken struct {
	gateway.AcceptedMail
	copy string // the plaintext of the copy
}

func (f *fixture) accept(t testing.TB, e gateway.Envelope, mail string) taken {
	t.Helper()
	before := len(f.database.mails)
	id, err := f.intake.Accept(t.Context(), e, f.spooled(t, mail))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.database.mails) != before+1 || f.database.mails[before].ID.String() != id {
		t.Fatalf("%d mails were committed for %s", len(f.database.mails)-before, id)
	}
	m := taken{AcceptedMail: f.database.mails[before]}
	text, err := f.read(t, m.Copy)
	if err != nil {
		t.Fatal(err)
	}
	m.copy = string(text)
	return m
}

// read returns the plaintext of a copy as far as it can be read.
func (f *fixture) read(t testing.TB, copied gateway.QueuedMail) ([]byte, error) {
	t.Helper()
	return readCopy(t, f.blobs, copied)
}

func readCopy(t testing.TB, store blob.Store, copied gateway.QueuedMail) ([]byte, error) {
	t.Helper()
	r, err := intake.NewCopies(store).Open(t.Context(), copied)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if closing := r.Close(); closing != nil {
		t.Error(closing)
	}
	return text, err
}

var linkForm = regexp.MustCompile(regexp.QuoteMeta(portalURL) + `/p/[0-9a-f]{32}#[-_0-9A-Za-z]{43}`)

// link is the Secure Link that the copy carries.
func (m taken) link(t testing.TB) crypto.Link {
	t.Helper()
	for _, text := range opened(t, m.copy) {
		if found := linkForm.FindString(text); found != "" {
			link, err := crypto.ParseLink(found)
			if err != nil {
				t.Fatal(err)
			}
			return link
		}
	}
	t.Fatalf("the copy has no link:\n%s", m.copy)
	return crypto.Link{}
}

// file is one opened item.
type file struct{ name, typ, content string }

// open opens the package as an agent's browser does: S from the database, K from the link.
func (f *fixture) open(t testing.TB, m taken) []file {
	t.Helper()
	if m.Package == nil {
		t.Fatal("there is no package")
	}
	link := m.link(t)
	if gateway.PackageID(link.ID) != m.ID || m.Package.ID != m.ID {
		t.Fatalf("the link is of %v, the package %v, the mail %v", link.ID, m.Package.ID, m.ID)
	}
	secret, err := crypto.ParseServerSecret(m.Package.ServerSecret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	head, err := f.blobs.Get(t.Context(), m.Package.Head, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = head.Close() }()
	opened, err := crypto.OpenHead(head, link.ID, secret, link.Keycode, f.signer)
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := link.Keycode.Proof(link.ID); err != nil || proof.Hash() != m.Package.ProofHash {
		t.Errorf("the hash of the proof is not that of the link's keycode (%v)", err)
	}
	if manifest := opened.Manifest(); manifest.Source != "mail" || !manifest.Created.Equal(m.Started) || opened.Signature() != crypto.Verified {
		t.Errorf("manifest: source %q, created %v, %s", manifest.Source, manifest.Created, opened.Signature())
	}
	var files []file
	for i, item := range opened.Manifest().Items {
		var content bytes.Buffer
		if err := opened.WriteItem(t.Context(), f.blobs, i, &content); err != nil {
			t.Fatal(err)
		}
		files = append(files, file{item.Name, item.Type, content.String()})
	}
	return files
}

// objects are the sizes of all objects in the store.
func (f *fixture) objects(t testing.TB) map[string]int64 { return listAll(t, f.blobs) }

func listAll(t testing.TB, store blob.Store) map[string]int64 {
	t.Helper()
	days, err := store.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, d := range days {
		for info, err := range store.List(t.Context(), d) {
			if err != nil {
				t.Fatal(err)
			}
			found[info.Name] = info.Size
		}
	}
	return found
}

// received is the Received field that envelope and id lead to.
func received(id gateway.PackageID) string {
	return fmt.Sprintf("Received: from mail.customer.example ([192.0.2.7])\r\n\tby mx.example.com with ESMTPS id %s\r\n"+
		"\tfor <support@example.com>;\r\n\tTue, 24 Nov 2026 12:30:14 +0000\r\n", id)
}

func showNames(show bool) func(*intake.Options) {
	return func(o *intake.Options) { o.ShowFilenames = show }
}
