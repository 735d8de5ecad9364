package portal

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"sealpost/gateway"
)

// key presses one key, wherever the focus is.
func (b *tab) key(key string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(key))
}

func (b *tab) wantEval(expression, want string) {
	b.t.Helper()
	if got := b.eval(expression); got != want {
		b.t.Errorf("%s is %q, want %q", expression, got, want)
	}
}

// What a scanner found is told above the files, and no file of it comes without a yes.
func TestBrowserWarnsOfAnInfectedMail(t *testing.T) {
	l, b := newLive(t), newTab(t)
	l.store.edit(l.pkg, func(p *gateway.Package) {
		p.Scan = gateway.Scan{Verdict: gateway.ScanInfected, Signature: "Eicar-<b>Test</b>"}
	})
	b.visit(l.link.Reveal())
	b.login(agentPassword)
	b.wait("#scan.infected[role=alert]", "The virus scanner reports Eicar-<b>Test</b>.")
	b.wantEval(`String(document.querySelector("#scan").compareDocumentPosition(document.querySelector("#files")))`, "4") // before the files
	b.shot("infected")

	const focused, opened = "document.activeElement.id || document.activeElement.ariaLabel", `String(document.querySelector("#confirm").open)`
	b.click("report.pdf")
	b.wait("#confirm[role=alertdialog]", "Eicar-<b>Test</b> in the mail that report.pdf came with")
	b.shot("infected-question")
	b.wantEval(focused, "confirm-no")
	b.key(kb.Escape)
	b.wantEval(opened, "false")
	b.wantEval(focused, "Download report.pdf")
	b.key(kb.Enter)
	b.wantEval(opened, "true")
	b.press("#confirm-no")
	b.wantEval(opened, "false")
	b.wantEval(`String(document.querySelectorAll("#files progress:not([hidden])").length)`, "0")
	if files := b.files(); len(files) > 0 {
		t.Errorf("files were saved without a yes: %q", files)
	}

	b.click("invoice\ufffdfdp.exe")
	b.key(kb.Tab)
	b.wantEval(focused, "confirm-yes")
	b.press("#confirm-yes")
	if got := b.saved("invoice_fdp.exe"); string(got) != "MZ" {
		t.Errorf("the file came as %q", got)
	}
	b.click("invoice\ufffdfdp.exe") // one yes counts once
	b.wantEval(opened, "true")
	b.key(kb.Escape)
	if files := b.files(); len(files) != 1 {
		t.Errorf("the downloads are %q", files)
	}
	b.wantNoComplaints()
}

// That nobody scanned the files is said without an alarm, and does not stand in the way.
func TestBrowserNotesAnUnscannedMail(t *testing.T) {
	l, b := newLive(t), newTab(t)
	l.store.edit(l.pkg, func(p *gateway.Package) { p.Scan.Verdict = gateway.ScanUnscanned })
	b.visit(l.link.Reveal())
	b.login(agentPassword)
	b.wait("#scan[role=note]:not(.infected)", "No virus scanner has looked at these files.")
	b.shot("unscanned")
	b.click("report.pdf")
	if got := b.saved("report.pdf"); len(got) != len(l.files[0].data) {
		t.Errorf("the file came as %d bytes", len(got))
	}

	l.store.edit(l.pkg, func(p *gateway.Package) { p.Scan.Verdict = gateway.ScanClean })
	b.visit(l.link.Reveal())
	b.wait("#package", "report.pdf")
	b.wantEval(`String(document.querySelector("#scan").hidden)`, "true")
	b.wantNoComplaints()
}
