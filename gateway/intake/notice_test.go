package intake_test

import (
	"slices"
	"strings"
	"testing"

	"sealpost/gateway"
	"sealpost/gateway/intake"
	"sealpost/gateway/policy/personal"
	"sealpost/gateway/rewrite"
)

// The words of the notice that tell its language or whose it is, in ASCII.
const (
	englishWords = "was taken out of"
	germanWords  = "aus dieser E-Mail"
	ownWords     = "Files of Example Corp"
)

func inLanguage(language string) gateway.Route {
	r := supportRoute()
	r.NoticeLanguage = language
	return r
}

// TestNoticeIsOfTheRoute: each route has its language, a mail to several the first one's, and preview shows the same.
func TestNoticeIsOfTheRoute(t *testing.T) {
	billing := route("billing@example.com", "billing@x-1a2b3c.case.example", supportRoute().ExpireAfter)
	billing.NoticeLanguage = "en"
	own, err := rewrite.ParseTemplate(ownWords+"\n{{.Link}}\n", "<p>"+ownWords+` <a href="{{.Link}}">{{.Link}}</a></p>`)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		envelope gateway.Envelope
		template *rewrite.Template
		want     string
	}{
		{"no language", envelope(), nil, englishWords},
		{"English", envelope(inLanguage("en")), nil, englishWords},
		{"German", envelope(inLanguage("de")), nil, germanWords},
		{"German first", envelope(inLanguage("de"), billing), nil, germanWords},
		{"English first", envelope(billing, inLanguage("de")), nil, englishWords},
		{"the admin's own", envelope(inLanguage("de")), own, ownWords},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			change := func(o *intake.Options) { o.NoticeTemplate, o.NoticePlace = test.template, rewrite.PlaceTop }
			f := newFixture(t, change)
			mail := mixed("Hello", twoFiles()[0])
			accepted := f.accept(t, test.envelope, mail).copy
			for _, words := range []string{englishWords, germanWords, ownWords} {
				if has := strings.Contains(accepted, words); has != (words == test.want) {
					t.Errorf("%q in the notice: %v", words, has)
				}
			}
			if strings.Index(accepted, test.want) > strings.Index(accepted, "Hello") {
				t.Error("the notice is not on top")
			}
			var shown strings.Builder
			if err := preview(t, test.envelope, mail, change).Write(&shown); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(shown.String(), test.want) {
				t.Errorf("preview shows another notice:\n%s", shown.String())
			}
		})
	}
}

// TestPreviewListsTheFiles: all that would be sealed, which is more than the parts.
func TestPreviewListsTheFiles(t *testing.T) {
	shown := preview(t, envelope(), mixed("Above\r\nbegin 644 report.txt\r\n1554M34%22T52(')E<&]R=`H`\r\n`\r\nend\r\nBelow", twoFiles()[0]))
	var names []string
	for _, file := range shown.Files {
		names = append(names, file.Name)
	}
	if got, want := strings.Join(names, " "), "report.txt "+twoFiles()[0].name; got != want {
		t.Errorf("files: %s, want %s", got, want)
	}
}

// TestImitationIsCounted: a text that looks like our notice, or links to the route's portal; not an answer that quotes one.
func TestImitationIsCounted(t *testing.T) {
	const words = "[1 file was taken out of this mail and moved to a secure place.]"
	for _, test := range []struct {
		name, text string
		want       bool
	}{
		{"an ordinary text", "Hello", false},
		{"our words", words, true},
		{"our words in an answer", "Thanks\r\n> " + words, false},
		{"a link to the portal", "See " + portalURL + "/p/00112233445566778899aabbccddeeff#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", true},
		{"a link to elsewhere", "See https://files.example.net/p/00112233445566778899aabbccddeeff", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			mail := mixed(test.text, twoFiles()[0])
			f.accept(t, envelope(), mail)
			if got := value(t, f.registry, "sealpost_intake_imitated_total", "") == 1; got != test.want {
				t.Errorf("counted: %v", got)
			}
			if got := strings.Contains(f.log.String(), `"imitated":true`); got != test.want {
				t.Errorf("logged: %v", got)
			}
			if got := preview(t, envelope(), mail).Imitates; got != test.want {
				t.Errorf("preview: %v", got)
			}
		})
	}
}

// TestPersonalDataIsCounted: by detector, in metrics, log and preview, and never what was found.
func TestPersonalDataIsCounted(t *testing.T) {
	detectors, err := personal.New(personal.Options{Cards: true, Patterns: map[string]string{"customer-number": "K-[0-9]{8}"}})
	if err != nil {
		t.Fatal(err)
	}
	change := func(o *intake.Options) { o.Rules.Text = &rewrite.TextRules{Detectors: detectors} }
	f := newFixture(t, change)
	mail := mixed("My card is 4111 1111 1111 1111, I am K-12345678 and not K-87654321.")
	if m := f.accept(t, envelope(), mail); !strings.HasSuffix(m.copy, mail) {
		t.Errorf("what is only counted changed the mail:\n%s", m.copy)
	}
	for detector, want := range map[string]float64{"card": 1, "customer-number": 2, "": 3} {
		if got := value(t, f.registry, "sealpost_intake_personal_total", detector); got != want {
			t.Errorf("%q: %v, want %v", detector, got, want)
		}
	}
	log := f.log.String()
	if !strings.Contains(log, `"personal":{"card":1,"customer-number":2}`) || strings.Contains(log, "1111") || strings.Contains(log, "12345678") {
		t.Errorf("the log says %s", log)
	}
	if got := preview(t, envelope(), mail, change).Personal; got["card"] != 1 || got["customer-number"] != 2 {
		t.Errorf("preview: %v", got)
	}
}

// TestTemplateThatFailsIsCounted: the mail goes on with our own notice, and an admin can see it.
func TestTemplateThatFailsIsCounted(t *testing.T) {
	failing, err := rewrite.ParseTemplate(ownWords+"\n{{if eq .Count 7}}{{index .Files 99}}{{end}}{{.Link}}\n", "<p>"+ownWords+` <a href="{{.Link}}">{{.Link}}</a></p>`)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(o *intake.Options) { o.NoticeTemplate = failing })
	for i, want := range []string{ownWords, "were taken out of"} {
		files := slices.Repeat(twoFiles()[:1], 1+6*i)
		if accepted := f.accept(t, envelope(), mixed("Hello", files...)).copy; !strings.Contains(accepted, want) {
			t.Errorf("%d files: the notice lacks %q", len(files), want)
		}
		if got := value(t, f.registry, "sealpost_intake_template_failures_total", ""); got != float64(i) {
			t.Errorf("%d files: %v failures are counted", len(files), got)
		}
	}
	if !strings.Contains(f.log.String(), `"template_failed":true`) {
		t.Error("the failure is not in the log")
	}
}
