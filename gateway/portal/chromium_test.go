package portal

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one tab of a real browser, and all that it sent and complained of.
type tab struct {
	t         *testing.T
	ctx       context.Context //nolint:containedctx // chromedp's handle of the tab is a context
	downloads string
	finished  chan string // the state of each download that ended

	mu         sync.Mutex
	sent       []string // every URL, header and body
	complaints []string
}

// newTab starts a browser with an empty profile. It ends with the test.
func newTab(t *testing.T) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("the pages are tested in Chromium, which is not here: apt-get install chromium")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.WindowSize(1000, 760),
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	b := &tab{t: t, ctx: ctx, downloads: t.TempDir(), finished: make(chan string, 16)}
	b.run(chromedp.Navigate("about:blank")) // starts the browser, whose life must not hang on a time-out
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b.ctx = limited
	if err := chromedp.Listen(limited, b.listen); err != nil {
		t.Fatalf("listen to the browser: %v", err)
	}
	events := true
	call(b, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: b.downloads, EventsEnabled: &events,
	})
	return b
}

// call runs a command of the DevTools protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// value runs an action that gives a value.
func value[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	return v
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.sent = append(b.sent, e.Request.URL, headerText(e.Request.Headers))
		for _, entry := range e.Request.PostDataEntries {
			b.sent = append(b.sent, string(entry.Bytes))
		}
	case *network.EventRequestWillBeSentExtraInfo:
		b.sent = append(b.sent, headerText(e.Headers))
	case *log.EventEntryAdded:
		if e.Entry.Source != log.EntrySourceNetwork {
			b.complaints = append(b.complaints, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		b.complaints = append(b.complaints, text)
	case *browser.EventDownloadProgress:
		if e.State != browser.DownloadProgressStateInProgress {
			b.finished <- e.State.String()
		}
	}
}

func headerText(h network.Headers) string {
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&all, "%s: %v\n", name, h[name])
	}
	return all.String()
}

func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// visit opens a link as from a mail: in a page that knows nothing of an earlier one.
func (b *tab) visit(link string) {
	b.t.Helper()
	b.run(chromedp.Navigate("about:blank"), chromedp.Navigate(link))
}

// wait returns when an element shows, with text in it. It fails with what the page showed instead.
func (b *tab) wait(selector, text string) {
	b.t.Helper()
	const script = `new Promise((resolve) => {
		const shown = () => Array.from(document.querySelectorAll(%q)).some(
			(e) => e.checkVisibility() && e.textContent.includes(%q));
		if (shown()) { resolve(true); return; }
		const timer = setTimeout(() => resolve(false), 30000);
		new MutationObserver((_, o) => {
			if (!shown()) return;
			o.disconnect(); clearTimeout(timer); resolve(true);
		}).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
	})`
	ok := value(b, chromedp.Evaluate[bool](fmt.Sprintf(script, selector, text), chromedp.EvalAwaitPromise))
	if !ok {
		b.t.Fatalf("%s never showed %q; the page shows:\n%s", selector, text, b.eval("document.body.innerText"))
	}
}

func (b *tab) eval(expression string) string {
	b.t.Helper()
	return value(b, chromedp.Evaluate[string](expression))
}

// login fills in the form as the agent, with a password.
func (b *tab) login(password string) {
	b.t.Helper()
	b.wait("#login-title", "Log in")
	b.run(chromedp.SetValue(chromedp.CSS("#agent"), agentAddress), chromedp.SetValue(chromedp.CSS("#password"), password))
	b.press("#login-submit")
}

// click presses the download button of the file that is shown as name.
func (b *tab) click(name string) {
	b.t.Helper()
	b.press(fmt.Sprintf("#files button[aria-label=%q]", "Download "+name))
}

func (b *tab) press(selector string) {
	b.t.Helper()
	b.run(chromedp.Click(chromedp.CSS(selector)))
}

// saved waits for a download to end and returns the file's content.
func (b *tab) saved(name string) []byte {
	b.t.Helper()
	select {
	case state := <-b.finished:
		if state != browser.DownloadProgressStateCompleted.String() {
			b.t.Fatalf("the download of %q ended as %s", name, state)
		}
	case <-b.ctx.Done():
		b.t.Fatalf("no download of %q ended; there are %q", name, b.files())
	}
	data, err := os.ReadFile(filepath.Join(b.downloads, name))
	if err != nil {
		b.t.Fatalf("%v; there are %q", err, b.files())
	}
	return data
}

func (b *tab) files() []string {
	b.t.Helper()
	entries, err := os.ReadDir(b.downloads)
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// shot keeps a picture of the page when SEALPOST_SCREENSHOTS names a directory.
func (b *tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("SEALPOST_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture := value(b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}
