package portal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"sealpost/crypto"
	"sealpost/gateway"
)

// sealedFile is a file of the package: as the mail called it, as the page shows it, as it is saved.
type sealedFile struct {
	name, shown, saved string
	data               []byte
}

func sealedFiles() []sealedFile {
	large := make([]byte, crypto.SegmentSize+1000) // two segments
	_, _ = rand.Read(large)
	return []sealedFile{
		{"report.pdf", "report.pdf", "report.pdf", bytes.Repeat([]byte("%PDF "), 50_000)},
		{"Größe 報告.txt", "Größe 報告.txt", "Größe 報告.txt", []byte("grüezi\n")},
		{"invoice\u202efdp.exe", "invoice\ufffdfdp.exe", "invoice_fdp.exe", []byte("MZ")},
		{`<img src=x onerror=alert(1)>`, `<img src=x onerror=alert(1)>`, "_img src=x onerror=alert(1)_", []byte("harmless")},
		{"empty", "empty", "empty", nil},
		{"large.bin", "large.bin", "large.bin", large},
	}
}

// live is a portal on loopback with a really sealed package, which records all that reaches it.
type live struct {
	*house
	server *httptest.Server
	link   crypto.Link
	files  []sealedFile

	mu       sync.Mutex
	received []string
}

func newLive(t *testing.T) *live {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &live{files: sealedFiles()}
	l.house = newHouse(t, func(o *Options) { o.URL = &url.URL{Scheme: "http", Host: listener.Addr().String()} })
	l.server = &httptest.Server{Listener: listener, Config: NewServer(l.record(l.handler), newDiscard())}
	l.server.Start()
	t.Cleanup(l.server.Close)
	l.seal()
	return l
}

func (l *live) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			l.t.Errorf("read a request: %v", err)
		}
		var header strings.Builder
		_ = r.Header.Write(&header) // to memory
		l.mu.Lock()
		l.received = append(l.received, r.RequestURI+"\n"+header.String()+"\n"+string(body))
		l.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// seal puts the files into the store as intake does.
func (l *live) seal() {
	l.t.Helper()
	ctx, now := context.Background(), time.Now().UTC()
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	recovery, err := crypto.GenerateRecoveryKey(now)
	must(err)
	keyring, err := crypto.NewKeyring(now)
	must(err)
	sealer, err := crypto.NewSealer([]*crypto.RecoveryPublicKey{recovery.Public()}, keyring.SigningKey(), now)
	must(err)
	id := gateway.NewPackageID()
	pkg, err := sealer.Begin(crypto.ID(id), now, string(gateway.SourceMail))
	must(err)
	for _, file := range l.files {
		_, err := pkg.AddItem(ctx, l.store, file.name, "application/octet-stream", bytes.NewReader(file.data))
		must(err)
	}
	sealed, err := pkg.Finish(ctx, l.store)
	must(err)
	expires := now.Add(time.Hour)
	out := gateway.Package{
		ID: id, State: gateway.PackageAvailable, Created: now, Expires: expires, Head: sealed.Head,
		ServerSecret: gateway.NewSecret(sealed.ServerSecret.Reveal()), ProofHash: sealed.ProofHash,
		Placements: []gateway.Placement{{Kind: gateway.PlacementRoute, Expires: expires}},
	}
	for _, o := range sealed.Objects {
		out.Objects = append(out.Objects, gateway.Object{Name: o.Name, Item: o.Item, Size: o.Size})
	}
	l.pkg = id
	l.store.edit(id, func(p *gateway.Package) { *p = out })
	l.link = crypto.Link{Portal: l.url.String(), ID: crypto.ID(id), Keycode: sealed.Keycode}
}

// segmentsOf returns the names of an item's objects.
func (l *live) segmentsOf(item int) []string {
	var names []string
	for _, o := range l.store.packages[l.pkg].Objects {
		if o.Item == item {
			names = append(names, o.Name)
		}
	}
	return names
}

// wantNoKeycode searches everything that was sent, received and logged.
func (l *live) wantNoKeycode(b *tab) {
	l.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b.sent) == 0 || len(l.received) == 0 {
		l.t.Fatal("no request was recorded")
	}
	places := map[string]string{
		"what the browser sent": strings.Join(b.sent, "\n"), "what the server received": strings.Join(l.received, "\n"),
		"the log": l.logs.String(),
	}
	keycode := l.link.Keycode.Reveal()
	for where, text := range places {
		for _, form := range []string{keycode, keycode[:20], keycode[23:]} {
			if strings.Contains(text, form) {
				l.t.Errorf("%s holds the keycode", where)
			}
		}
	}
	if strings.Contains(strings.ToLower(places["what the server received"]), "\nreferer:") {
		l.t.Error("a request carries a referrer")
	}
}

func (b *tab) wantNoComplaints() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, complaint := range b.complaints {
		b.t.Errorf("the browser complains: %s", complaint)
	}
}

// An agent opens a Secure Link, logs in, and gets every file as it was sealed; the keycode goes nowhere.
func TestBrowserOpensALink(t *testing.T) {
	l, b := newLive(t), newTab(t)
	b.visit(l.link.Reveal())
	if address := b.eval("location.href"); address != l.url.String()+"/p/"+l.pkg.String() {
		t.Errorf("the address bar shows %s", strings.ReplaceAll(address, l.link.Keycode.Reveal(), "K"))
	}
	b.login("wrong")
	b.wait("#login-error", "The address or the password is wrong.")
	b.shot("login-wrong")
	b.login(agentPassword)
	b.wait("#package", fmt.Sprintf("%d files", len(l.files)))
	b.shot("files")
	for _, file := range l.files {
		b.click(file.shown)
		if got := b.saved(file.saved); sha256.Sum256(got) != sha256.Sum256(file.data) {
			t.Errorf("%q came as %d bytes that are not what was sealed", file.shown, len(got))
		}
	}
	b.wait("#files", "Decrypted")
	b.shot("files-saved")

	b.run(chromedp.Reload())
	b.wait("#package", "report.pdf")
	b.press("#logout")
	b.wait("#login-title", "Log in")
	if shown := b.eval("document.body.textContent"); strings.Contains(shown, "report.pdf") {
		t.Error("file names stay in the page after log-out")
	}
	l.wantNoKeycode(b)
	b.wantNoComplaints()
}

// What was altered, cut or is missing gives a message and no file; the rest stays usable.
func TestBrowserRefusesDamage(t *testing.T) {
	l, b := newLive(t), newTab(t)
	segments := l.segmentsOf(5)
	l.store.blobs[segments[1]][5] ^= 1
	l.store.blobs[l.segmentsOf(0)[0]] = l.store.blobs[l.segmentsOf(1)[0]]
	delete(l.store.blobs, l.segmentsOf(4)[0])
	b.visit(l.link.Reveal())
	b.login(agentPassword)
	for name, message := range map[string]string{
		"large.bin": "damaged or altered", "report.pdf": "The server cannot be reached.", "empty": "missing in storage",
	} {
		b.click(name)
		b.wait(fmt.Sprintf("#files li:has(button[aria-label=%q]) .message", "Download "+name), message)
		b.wait(fmt.Sprintf("#files li:has(button[aria-label=%q]) .message", "Download "+name), "Nothing was saved.")
	}
	b.shot("damaged")
	if files := b.files(); len(files) > 0 {
		t.Errorf("files were saved: %q", files)
	}
	b.click("invoice\ufffdfdp.exe")
	if got := b.saved("invoice_fdp.exe"); string(got) != "MZ" {
		t.Errorf("an undamaged file came as %q", got)
	}
	b.wantNoComplaints()
}

// Every state that a link can be in is told in words.
func TestBrowserTellsEveryState(t *testing.T) {
	l, b := newLive(t), newTab(t)
	link := l.link.Reveal()
	base, keycode, _ := strings.Cut(link, "#")
	b.visit(base)
	b.wait("#notice", "This link is incomplete")
	b.shot("incomplete")
	b.visit(base + "#" + keycode[1:])
	b.wait("#notice", "This link is incomplete")

	b.visit(l.url.String() + "/")
	b.wait("#notice", "Sealpost keeps the attachments")
	b.shot("home")
	b.visit(link)
	b.login(agentPassword)
	b.wait("#package", "report.pdf")

	other := "A" + keycode[1:]
	if keycode[0] == 'A' {
		other = "B" + keycode[1:]
	}
	b.visit(base + "#" + other)
	b.wait("#notice", "This link opens nothing")
	b.visit(link)
	b.wait("#package", "report.pdf")

	original := l.store.packages[l.pkg]
	for _, state := range []struct {
		change func(*gateway.Package)
		want   string
	}{
		{func(p *gateway.Package) { p.Expires = time.Now().Add(-time.Hour) }, "These files have expired"},
		{func(p *gateway.Package) { p.State = gateway.PackageRevoked }, "These files were withdrawn"},
		{func(p *gateway.Package) { p.Placements = nil }, "You may not open these files"},
		{func(p *gateway.Package) { p.State = gateway.PackageArriving }, "These files are still arriving"},
		{func(p *gateway.Package) { p.Head = l.segmentsOf(0)[0] }, "These files cannot be opened"},
	} {
		l.store.edit(l.pkg, state.change)
		b.visit(base)
		b.wait("#notice", state.want)
		l.store.edit(l.pkg, func(p *gateway.Package) { *p = original })
	}
	b.press("#notice-retry")
	b.wait("#package", "report.pdf")
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	})
	b.shot("files-dark")
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: 360, Height: 700, DeviceScaleFactor: 1, Mobile: true,
	})
	b.shot("files-narrow")
	b.wantNoComplaints()
}

// Time passes while the page is open: grants and sessions end, and the server may go away.
func TestBrowserOutlivesGrantAndSession(t *testing.T) {
	l, b := newLive(t), newTab(t)
	b.visit(l.link.Reveal())
	b.login(agentPassword)
	b.wait("#package", "report.pdf")
	clear(l.store.grants)
	b.click("report.pdf")
	if got := b.saved("report.pdf"); !bytes.Equal(got, l.files[0].data) {
		t.Error("the file is not what was sealed")
	}
	clear(l.store.sessions)
	b.click("Größe 報告.txt")
	b.wait("#login-error", "Your session has ended.")
	for range 5 {
		l.loginFrom("127.0.0.1", agentAddress, "guess")
	}
	b.login(agentPassword)
	b.wait("#login-error", "Too many failed log-ins. Try again in 15 minutes.")
	clear(l.store.failures)
	b.login(agentPassword)
	b.wait("#package", "report.pdf")
	l.server.CloseClientConnections()
	l.server.Close()
	b.click("Größe 報告.txt")
	b.wait("#files .message", "Check your connection, then try again. Nothing was saved.")
	if files := b.files(); len(files) != 1 {
		t.Errorf("the downloads are %q", files)
	}
	b.wantNoComplaints()
	l.wantNoKeycode(b)
}
