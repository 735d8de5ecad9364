package rewrite

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealpost/gateway"
)

var update = flag.Bool("update", false, "rewrite the golden mails")

const (
	goldenDir = "../../testdata/mail"
	testTrace = "Received: from mail.customer.example by mx.example.com; Tue, 24 Nov 2026 09:00:01 +0000\r\n"
	testLink  = "https://files.example.com/p/00112233445566778899aabbccddeeff#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

// judge stands for the default policy, which lives beside this package and not below it.
func judge(p gateway.Part) (gateway.Verdict, string) {
	switch {
	case p.Walked && p.Disposition != "attachment":
		return gateway.Keep, "walked"
	case p.Content != "" || p.InMacFile:
		return gateway.Seal, "sealed"
	case p.InReport && (p.Type == "message/delivery-status" || p.Type == "text/rfc822-headers"):
		return gateway.Keep, "kept"
	case p.Disposition == "attachment" || !p.Filename.IsZero():
		return gateway.Seal, "sealed"
	case p.Type == "text/plain" || p.Type == "text/html" || p.Type == "text/enriched" || p.Type == "text/x-amp-html":
		return gateway.Keep, "kept"
	}
	return gateway.Seal, "sealed"
}

// result is what became of a mail.
type result struct {
	plan    *Plan
	mail    []byte
	written Written
	names   []string
	files   [][]byte
}

func rewriteMail(t testing.TB, mail []byte) result {
	t.Helper()
	return rewriteWith(t, mail, DefaultLimits())
}

func rewriteWith(t testing.TB, mail []byte, limits Limits) result {
	t.Helper()
	return way{}.rewrite(t, mail, limits)
}

// way is what a caller asks for besides.
type way struct {
	whole string // why the mail is sealed whole
	trace string // below testTrace
	rules Rules  // the judge is added
	ours  string // how a forged Authentication-Results begins
}

// goldenWays are those of the golden mails in judged, of which a mail alone does not say what becomes of it.
func goldenWays() map[string]way {
	return map[string]way{
		"whole-dmarc": {
			whole: "the author's domain disowns it (DMARC)",
			trace: "Authentication-Results: mx.example.com; dmarc=fail (p=quarantine) header.from=bank.example;\r\n" +
				"\tspf=fail smtp.mailfrom=bank.example\r\n",
		},
		"whole-signed": {rules: Rules{SealSigned: true}},
		"forged-results": {
			trace: "Authentication-Results: mx.example.com; dmarc=none header.from=customer.example\r\n",
			ours:  "mx.example.com",
		},
	}
}

func (w way) rewrite(t testing.TB, mail []byte, limits Limits) result {
	t.Helper()
	msg, err := Scan(bytes.NewReader(mail), limits)
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	w.rules.Judge, w.rules.InlineImage = judge, DefaultInlineImage
	plan, err := NewPlan(msg, w.rules)
	if w.whole != "" {
		plan, err = NewWholePlan(msg, w.rules, w.whole, CauseDisowned)
	}
	if err == nil && w.ours != "" {
		_, err = plan.Drop(func(name, value string) bool {
			return name == "authentication-results" && strings.HasPrefix(value, w.ours)
		})
	}
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	r := result{plan: plan}
	notice := Notice{Link: testLink, ShowNames: true, Expires: time.Date(2027, 11, 24, 0, 0, 0, 0, time.UTC)}
	for _, item := range plan.Items() {
		file, err := io.ReadAll(item.Open())
		if err != nil {
			t.Fatalf("open an item: %v", err)
		}
		if int64(len(file)) != item.Size {
			t.Fatalf("an item has %d bytes and says %d", len(file), item.Size)
		}
		r.names, r.files = append(r.names, item.Name), append(r.files, file)
		notice.Files = append(notice.Files, File{Name: item.Name, Size: item.Size})
	}
	var out bytes.Buffer
	r.written, err = plan.Write(&out, Output{Trace: []byte(testTrace + w.trace), Notice: notice})
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	r.mail = out.Bytes()
	if r.written.Size != int64(out.Len()) {
		t.Fatalf("%d bytes were written, and %d counted", out.Len(), r.written.Size)
	}
	if len(r.files) == 0 && w.ours == "" && string(r.mail) != testTrace+string(mail) {
		t.Fatal("nothing is sealed, and yet the mail has changed")
	}
	if n := bytes.Count(r.mail, []byte(testLink)); len(r.files) == 0 && n != bytes.Count(mail, []byte(testLink)) {
		t.Fatal("a link without a file")
	}
	return r
}

func TestGoldenMails(t *testing.T) {
	dirs, err := filepath.Glob(goldenDir + "/*/in.eml")
	if err != nil || len(dirs) < 25 {
		t.Fatalf("%d golden mails found, %v", len(dirs), err)
	}
	judged, err := filepath.Glob(goldenDir + "/judged/*/in.eml")
	if err != nil || len(judged) != len(goldenWays()) {
		t.Fatalf("%d judged mails found, %v", len(judged), err)
	}
	for _, in := range append(dirs, judged...) {
		dir := filepath.Dir(in)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			mail, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			got := goldenWays()[filepath.Base(dir)].rewrite(t, mail, DefaultLimits())
			checkGolden(t, filepath.Base(dir), got)
			want := filepath.Join(dir, "want.eml")
			if *update {
				if err := os.WriteFile(want, got.mail, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.mail, expected) {
				t.Errorf("the mail differs from want.eml:\n%s", got.mail)
			}
		})
	}
}

// checkGolden compares what was sealed with the table below, which -update does not touch.
func checkGolden(t *testing.T, name string, got result) {
	t.Helper()
	want, known := goldenItems()[name]
	if !known {
		t.Fatalf("%s is not in the table", name)
	}
	reason, _ := got.plan.Whole()
	have := strings.Join(got.names, ", ")
	if reason != "" {
		have = "whole: " + reason
	}
	if have != want {
		t.Errorf("sealed %q, want %q", have, want)
	}
}

func goldenItems() map[string]string {
	return map[string]string{
		"uuencode":                    "invoice 4711.pdf",
		"uuencode-qp":                 "invoice 4711.pdf",
		"uuencode-base64":             "invoice 4711.pdf",
		"uuencode-only":               "invoice 4711.pdf",
		"uuencode-two":                "invoice 4711.pdf, photo.pdf",
		"uuencode-quoted":             "invoice 4711.pdf",
		"yenc":                        "table.bin.yenc",
		"binhex":                      "attachment-1.hqx",
		"pgp-inline":                  "attachment-1.asc",
		"pgp-inline-html":             "attachment-1.asc",
		"text-utf16-file":             "attachment-1.txt",
		"picture-logo":                "",
		"picture-large":               "passport.png",
		"picture-attachment":          "passport.png, logo.png",
		"picture-svg":                 "logo.svg",
		"data-uri":                    "data-1.png, data-2.pdf, data-3.svg",
		"data-uri-qp":                 "data-1.png, data-2.pdf, data-3.svg",
		"plain":                       "",
		"alternative-pdf":             "invoice.pdf",
		"related-inline":              "",
		"html-only":                   "invoice.pdf",
		"html-open-comment":           "invoice.pdf",
		"root-pdf":                    "invoice.pdf",
		"nested":                      "invoice.pdf, invoice.pdf",
		"all-sealed":                  "invoice.pdf, attachment-2.pdf",
		"preamble-epilogue":           "invoice.pdf",
		"no-final-boundary":           "invoice.pdf",
		"no-final-boundary-inner":     "attachment-1.ics, invoice.pdf",
		"doubled-boundary":            "invoice.pdf",
		"boundary-prefix":             "invoice.pdf",
		"raw-8bit-header":             "Größe.pdf",
		"ascii-body-utf8-name":        "東京 invoice.pdf",
		"base64-body":                 "invoice.pdf",
		"qp-html":                     "invoice.pdf",
		"qp-plain":                    "invoice.pdf",
		"latin1-body":                 "invoice.pdf",
		"latin1-alternative":          "invite.ics",
		"flowed-signature":            "invoice.pdf",
		"dsn":                         "",
		"dsn-headers":                 "",
		"dsn-file":                    "attachment-1.txt",
		"signed-fake":                 "signed-message.eml, signature.asc",
		"signed-file":                 "signed-message.eml, invoice.pdf",
		"forwarded":                   "",
		"forwarded-attachment":        "Your invoice.eml",
		"digest":                      "",
		"signed-text":                 "",
		"signed-file-inside":          "signed-message.eml, invoice.pdf",
		"encrypted":                   "whole: " + whyEnvelope,
		"long-text":                   "invoice.pdf",
		"overlong-text":               "message.txt",
		"overlong-text-alternative":   "message.txt",
		"overlong-html":               "message.html",
		"forged-results":              "",
		"whole-dmarc":                 "whole: the author's domain disowns it (DMARC)",
		"whole-long-fields":           "whole: " + whyNoBoundary,
		"forwarded-files":             "invoice.pdf, terms.pdf",
		"tnef":                        "winmail.dat, Grüße.doc, photo.jpg",
		"tnef-damaged":                "winmail.dat",
		"tnef-hidden":                 "part.bin, Grüße.doc, photo.jpg",
		"forwarded-only-file":         "scan.eml",
		"forwarded-deep":              "invoice.pdf",
		"forwarded-root":              "invoice.pdf",
		"forwarded-base64":            "mail.eml",
		"forwarded-ambiguous":         "attachment-1.eml, invoice.pdf",
		"forwarded-twice":             "attachment-1.eml",
		"forwarded-unquoted-boundary": "attachment-1.eml",
		"dsn-original":                "invoice.pdf",
		"digest-files":                "invoice.pdf",
		"text-pdf":                    "attachment-1.txt",
		"text-zip-junk":               "attachment-1.html",
		"appledouble":                 "attachment-1.bin, attachment-2.txt",
		"mixed-replace":               "invoice.pdf",
		"partial":                     "attachment-1.txt",
		"external-body":               "attachment-1.txt",
		"second-text":                 "log.txt, notes.txt, attachment-3.txt",
		"calendar":                    "attachment-1.ics, attachment-2.vcf, attachment-3.csv, attachment-4.xml",
		"names-rfc2231":               "€.txt, long name.txt, € 1.txt, ab.txt, £.txt, better name.txt, Größe.txt, no-charset.txt",
		"names-hostile": "../../etc/passwd, C:\\Windows\\a.exe, a\x00b.pdf, cod\u202Efdp.exe, " +
			strings.Repeat("n", 10000) + ", ..",
		"whole-folded":             "whole: " + whyFolded,
		"whole-hidden-field":       "whole: " + whyCutHeader,
		"whole-epilogue-file":      "whole: " + whyOutside,
		"whole-number-of-parts":    "whole: " + whyParts,
		"whole-header":             "whole: " + whyHeaderSize,
		"no-mime-version":          "invoice.pdf",
		"rfc2047-name":             "Überweisung 東京.pdf",
		"hostile-name":             "../<b>cod\u202Efdp.exe",
		"many-files":               manyNames(),
		"dirty-base64":             "invoice.pdf",
		"unknown-encoding":         "a.bin",
		"contradiction-sealed":     "attachment-1.pdf",
		"empty-multipart":          "",
		"encoded-word-type":        "attachment-1.pdf",
		"whole-bare-newlines":      "whole: " + whyBytes,
		"whole-twice":              "whole: " + whyTwice,
		"whole-no-boundary":        "whole: " + whyNoBoundary,
		"whole-never-occurs":       "whole: " + whyNeverOccurs,
		"whole-two-boundaries":     "whole: " + whyOddBoundary,
		"whole-twin-boundary":      "whole: " + whyTwins,
		"whole-encoded-multipart":  "whole: " + whyEncoding,
		"whole-encoded-word":       "whole: " + whyWord,
		"whole-cut-header":         "whole: " + whyCutHeader,
		"whole-nearly-boundary":    "whole: " + whyNearly,
		"whole-boundary-case":      "whole: " + whyNearly,
		"whole-odd-type":           "whole: " + whyOddType,
		"whole-comment-type":       "whole: " + whyShaky,
		"whole-header-to-boundary": "whole: " + whyCutHeader,
		"whole-undeclared-base64":  "whole: " + whyDecoding,
		"whole-preamble-of-file":   "whole: " + whyOutside,
		"whole-epilogue":           "whole: " + whyNearly,
		"whole-preamble":           "whole: " + whyOutside,
		"whole-unquoted-boundary":  "whole: " + whyShaky,
		"whole-signed":             "whole: " + whyEnvelope,
		"whole-depth":              "whole: " + whyDepth,
	}
}

func manyNames() string {
	var names []string
	for i := range 25 {
		names = append(names, "file number "+string(rune('0'+i/10))+string(rune('0'+i%10))+".bin")
	}
	for i := range 10 {
		names[i] = "file number " + string(rune('0'+i)) + ".bin"
	}
	return strings.Join(names, ", ")
}
