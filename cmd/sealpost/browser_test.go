package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"sealpost/sfclient/sftest"
)

// referrer is a Referer field with a value; DevTools shows an empty one where there will be none.
var referrer = regexp.MustCompile(`(?im)^referer: *\S`)

// chromium is a tab of a real browser that records what it sends.
type chromium struct {
	ctx      context.Context //nolint:containedctx // chromedp's handle of the tab is a context
	saves    string          // the directory of its downloads
	finished chan browser.DownloadProgressState

	mu       sync.Mutex
	urls     int
	requests strings.Builder // URLs, headers and bodies, line by line
}

// openChromium starts a browser with an empty profile, which ends with the test.
func openChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("the portal's page is tested in Chromium, which is not here; on Debian, as root: apt-get install chromium")
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true))
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	c := &chromium{ctx: tab, saves: t.TempDir(), finished: make(chan browser.DownloadProgressState, 4)}
	c.do(t, chromedp.Navigate("about:blank")) // starts the browser, whose life must not hang on a time-out
	limited, cancel := context.WithTimeout(tab, waitLimit)
	t.Cleanup(cancel)
	c.ctx = limited
	if err := chromedp.Listen(limited, c.listen); err != nil {
		t.Fatal(err)
	}
	events := true
	if _, err := chromedp.Call(limited, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: c.saves, EventsEnabled: &events,
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// listen records requests as they go out: the fragment of a URL, which stays in the browser, is not in them.
func (c *chromium) listen(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		c.urls++
		fmt.Fprintln(&c.requests, e.Request.Method, e.Request.URL)
		c.headers(e.Request.Headers)
		for _, entry := range e.Request.PostDataEntries {
			fmt.Fprintln(&c.requests, string(entry.Bytes))
		}
	case *network.EventRequestWillBeSentExtraInfo:
		c.headers(e.Headers)
	case *browser.EventDownloadProgress:
		if e.State != browser.DownloadProgressStateInProgress {
			c.finished <- e.State
		}
	}
}

func (c *chromium) headers(headers network.Headers) {
	for name, value := range headers {
		fmt.Fprintf(&c.requests, "%s: %v\n", name, value)
	}
}

func (c *chromium) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(c.ctx, actions...); err != nil {
		t.Fatalf("browser: %v", err)
	}
}

func (c *chromium) eval(t *testing.T, expression string) string {
	t.Helper()
	value, err := chromedp.Run(c.ctx, chromedp.Evaluate[string](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("browser: %v", err)
	}
	return value
}

// shows waits until an element is visible, and returns its text.
func (c *chromium) shows(t *testing.T, selector string) string {
	t.Helper()
	const script = `new Promise((resolve) => {
		const look = () => {
			const e = document.querySelector(%q);
			if (e !== null && e.checkVisibility()) resolve("shown " + e.innerText); else setTimeout(look, 20);
		};
		setTimeout(() => resolve(document.body.innerText), 20000);
		look();
	})`
	text, shown := strings.CutPrefix(c.eval(t, fmt.Sprintf(script, selector)), "shown ")
	if !shown {
		t.Fatalf("%s is not shown; the page shows:\n%s", selector, text)
	}
	return text
}

// download presses the button of a file and returns what was saved.
func (c *chromium) download(t *testing.T, name string) []byte {
	t.Helper()
	c.do(t, chromedp.Click(chromedp.CSS(fmt.Sprintf("#files button[aria-label=%q]", "Download "+name))))
	select {
	case state := <-c.finished:
		if state != browser.DownloadProgressStateCompleted {
			t.Fatalf("the download of %s ended as %s", name, state)
		}
	case <-c.ctx.Done():
		t.Fatalf("the download of %s does not end; the page shows:\n%s", name, c.eval(t, "document.body.innerText"))
	}
	data, err := os.ReadFile(filepath.Join(c.saves, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// openLink opens a Secure Link and logs in.
func (c *chromium) openLink(t *testing.T, link string) {
	t.Helper()
	c.do(t, chromedp.Navigate(link))
	if body := c.eval(t, "document.body.innerText"); strings.Contains(body, "not built") {
		t.Fatal("the portal's pages were not built: make ui")
	}
	c.shows(t, "#login-form")
	c.do(t, chromedp.SetValue(chromedp.CSS("#agent"), testAgent), chromedp.SetValue(chromedp.CSS("#password"), testPassword),
		chromedp.Click(chromedp.CSS("#login-submit")))
	c.shows(t, "#package")
}

// TestBrowserOpensALink follows a mail from SMTP to the agent's disk: Chromium opens the link that the org
// received, and the keycode is in no request and no log, however much is logged.
func TestBrowserOpensALink(t *testing.T) {
	org := startOrg(t, sftest.Options{})
	n := install(t, filepath.Join(t.TempDir(), "sealpost"), org.Addr())
	n.appendConfig(t, "log: {level: debug}")
	n.start(t, "sealpost")
	report, picture := randomBytes(200<<10), randomBytes(1536)
	mail := letter("browser@customer.example", "Files", "See the files.", "report.pdf", report, "picture.png", picture)
	if err := n.send("jane@customer.example", strings.NewReader(string(mail))); err != nil {
		t.Fatal(err)
	}
	link := theLink(t, waitMails(t, org, 1)[0])
	_, keycode, _ := strings.Cut(link, "#")

	c := openChromium(t)
	c.openLink(t, link)
	list := c.shows(t, "#files")
	for _, want := range []string{"report.pdf", "204.8 kB", "picture.png", "1.5 kB"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list does not show %q:\n%s", want, list)
		}
	}
	for name, want := range map[string][]byte{"report.pdf": report, "picture.png": picture} {
		if got := sha256.Sum256(c.download(t, name)); got != sha256.Sum256(want) {
			t.Errorf("%s came with SHA-256 %x, want %x", name, got, sha256.Sum256(want))
		}
	}
	n.stop(t)
	wantNoKeycode(t, c, n, keycode)
}

// wantNoKeycode searches all that was sent and logged, after it has made sure that it was recorded.
func wantNoKeycode(t *testing.T, c *chromium, n *node, keycode string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.requests.String()
	for _, part := range []string{"/p/", "/api/v1/login", testPassword, "/open", `"proof"`, "/objects/"} {
		if !strings.Contains(sent, part) {
			t.Errorf("of %d requests none holds %q; not all that is sent is recorded", c.urls, part)
		}
	}
	if !strings.Contains(n.logs.String(), "mail accepted") {
		t.Error("the log was not recorded")
	}
	for where, text := range map[string]string{"what the browser sent": sent, "the node's log": n.logs.String()} {
		for _, piece := range []string{keycode, keycode[:20], keycode[23:]} {
			if strings.Contains(text, piece) {
				t.Errorf("%s holds the keycode", where)
			}
		}
		if referrer.MatchString(text) {
			t.Errorf("%s holds a referrer", where)
		}
	}
}
