package intake_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
)

const plainMail = "From: Ada <ada@customer.example>\r\nTo: support@example.com\r\nSubject: Help thread::abc::\r\n" +
	"Message-ID: <1@customer.example>\r\n\r\nPlease help.\r\n"

// mixed is a mail of a text and files: name, type and content of each.
func mixed(text string, files ...file) string {
	var b strings.Builder
	b.WriteString("From: Ada <ada@customer.example>\r\nSubject: Files\r\nMessage-ID: <2@customer.example>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n--=_b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" +
		text + "\r\n")
	for _, f := range files {
		b.WriteString("--=_b\r\nContent-Type: " + f.typ + "\r\nContent-Disposition: attachment; filename=\"" + f.name +
			"\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines(base64.StdEncoding.EncodeToString([]byte(f.content))))
	}
	b.WriteString("--=_b--\r\n")
	return b.String()
}

// lines breaks text as RFC 2045 section 6.8 does.
func lines(text string) string {
	var b strings.Builder
	for chunk := range slices.Chunk([]byte(text), 76) {
		b.Write(chunk)
		b.WriteString("\r\n")
	}
	return b.String()
}

func twoFiles() []file {
	return []file{
		{"invoice.pdf", "application/pdf", "%PDF-1.7\x00\xff" + strings.Repeat("invoice", 5000)},
		{"Größe.png", "image/png", ""},
	}
}

func TestMailWithFilesMakesOnePackageThatOpens(t *testing.T) {
	f := newFixture(t)
	m := f.accept(t, envelope(), mixed("Hello", twoFiles()...))
	if got := f.open(t, m); !slices.Equal(got, twoFiles()) {
		t.Errorf("%d items, or other bytes, names or types than those sent", len(got))
	}
	for _, sent := range twoFiles() {
		if sent.content != "" && strings.Contains(m.copy, base64.StdEncoding.EncodeToString([]byte(sent.content))[:60]) {
			t.Errorf("%s is still in the mail", sent.name)
		}
	}
	p := m.Package
	if p.Source != gateway.SourceMail || p.State != gateway.PackageAvailable || !p.Created.Equal(clock()) || !m.Started.Equal(clock()) {
		t.Errorf("source %s, state %s, created %v", p.Source, p.State, p.Created)
	}
	want := []gateway.Item{{Ordinal: 0, Size: int64(len(twoFiles()[0].content)), Segments: 1}, {Ordinal: 1, Size: 0, Segments: 1}}
	if !slices.Equal(p.Items, want) {
		t.Errorf("items %+v, want %+v", p.Items, want)
	}
	if !reflect.DeepEqual(m.Envelope, envelope()) || m.MessageID.Reveal() != "<2@customer.example>" {
		t.Errorf("envelope or Message-ID is not the mail's")
	}
}

func TestPackageListsExactlyTheObjectsInTheStore(t *testing.T) {
	f := newFixture(t)
	m := f.accept(t, envelope(), mixed(strings.Repeat("Long text.\r\n", 7000), twoFiles()...))
	listed := map[string]int64{m.Copy.Object: f.objects(t)[m.Copy.Object]}
	items := map[int]int{}
	for _, object := range m.Package.Objects {
		listed[object.Name] = object.Size
		items[object.Item]++
		name, err := crypto.ParseObjectName(object.Name)
		if err != nil || name.ID != crypto.ID(m.ID) || name.Day != "20261124" {
			t.Errorf("object %s: %v", object.Name, err)
		}
		if head := object.Name == m.Package.Head; head != (object.Item == gateway.HeadObject) || head != (name.Kind == crypto.KindHead) {
			t.Errorf("object %s of item %d, the head is %s", object.Name, object.Item, m.Package.Head)
		}
	}
	if !maps.Equal(listed, f.objects(t)) {
		t.Errorf("listed %v\nstored %v", listed, f.objects(t))
	}
	if want := map[int]int{0: 1, 1: 1, gateway.HeadObject: 1}; !maps.Equal(items, want) {
		t.Errorf("objects by item: %v", items)
	}
}

// TestCopyIsTraceAndRewrittenMail rewrites the mail a second time, with the link that it got.
func TestCopyIsTraceAndRewrittenMail(t *testing.T) {
	f := newFixture(t)
	mail := mixed("Hello", twoFiles()...)
	m := f.accept(t, envelope(), mail)
	message, err := rewrite.Scan(strings.NewReader(mail), rewrite.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := rewrite.NewPlan(message, rewrite.Rules{Judge: policy.Default().Judge})
	if err != nil {
		t.Fatal(err)
	}
	notice := rewrite.Notice{Link: m.link(t).Reveal(), ShowNames: true, Expires: clock().Add(30 * day)}
	for _, sent := range twoFiles() {
		notice.Files = append(notice.Files, rewrite.File{Name: sent.name, Size: int64(len(sent.content))})
	}
	var want bytes.Buffer
	written, err := plan.Write(&want, rewrite.Output{Trace: []byte(received(m.ID)), Notice: notice})
	if err != nil {
		t.Fatal(err)
	}
	if m.copy != want.String() {
		t.Errorf("the copy is\n%s\nwant\n%s", m.copy, want.String())
	}
	if m.Copy.Size != written.Size || m.Copy.Size != int64(len(m.copy)) {
		t.Errorf("size %d, the mail has %d bytes", m.Copy.Size, len(m.copy))
	}
	if m.Copy.ID != m.ID || m.Copy.MailFrom.Reveal() != "ada@customer.example" || m.Copy.Key != f.database.key {
		t.Error("the copy has another ID, return path or key than the mail")
	}
}

func TestNothingSealedLeavesTheMailByteIdentical(t *testing.T) {
	f := newFixture(t)
	m := f.accept(t, envelope(), plainMail)
	if m.Package != nil {
		t.Error("a mail without files has a package")
	}
	if m.copy != received(m.ID)+plainMail {
		t.Errorf("the copy is\n%s", m.copy)
	}
	if found := f.objects(t); len(found) > 0 {
		t.Errorf("objects %v", found)
	}
}

func TestMessageIDIsAddedOnlyWhereNoneIs(t *testing.T) {
	f := newFixture(t)
	ours := func(m taken) string { return "<" + m.ID.String() + "@" + hostname + ">" }
	tests := []struct{ name, field, want string }{
		{"given", "Message-ID: <1@customer.example>\r\n", "<1@customer.example>"},
		{"folded, in other case", "MESSAGE-Id:\r\n <1@customer.example>\r\n", "<1@customer.example>"},
		{"none", "", ""},
		{"one that only looks like it", "X-Message-ID: <1@customer.example>\r\nReferences: <0@customer.example>\r\n", ""},
	}
	for _, test := range tests {
		for shape, rest := range map[string]string{
			"kept":   "Subject: x\r\n\r\ntext\r\n",
			"sealed": "Subject: x\r\nContent-Type: application/pdf\r\n\r\nfile\r\n",
			"whole":  "Subject: x\r\nContent-Type: multipart/mixed\r\n\r\ntext\r\n",
		} {
			t.Run(test.name+", "+shape, func(t *testing.T) {
				m := f.accept(t, envelope(), test.field+rest)
				want := test.want
				if want == "" {
					want = ours(m)
					if !strings.HasPrefix(m.copy, received(m.ID)+"Message-ID: "+want+"\r\n") {
						t.Errorf("no Message-ID was added:\n%s", m.copy)
					}
				} else if strings.Contains(m.copy, ours(m)) || !strings.Contains(m.copy, test.field) {
					t.Errorf("the Message-ID was touched:\n%s", m.copy)
				}
				if got := m.MessageID.Reveal(); got != want {
					t.Errorf("Message-ID %q, want %q", got, want)
				}
			})
		}
	}
}

func TestOneRouteForEachMailbox(t *testing.T) {
	f := newFixture(t)
	support := supportRoute()
	help := route("help@example.com", support.ForwardTo, 30*day)
	sales := route("sales@example.com", "sales@x-4d5e6f.case.salesforce.com", 90*day)
	tests := []struct {
		name    string
		to      []gateway.Route
		want    []gateway.Route
		expires time.Time
	}{
		{"one", []gateway.Route{support}, []gateway.Route{support}, clock().Add(30 * day)},
		{"two addresses of one mailbox", []gateway.Route{support, help}, []gateway.Route{support}, clock().Add(30 * day)},
		{"one address twice", []gateway.Route{support, support}, []gateway.Route{support}, clock().Add(30 * day)},
		{"two mailboxes", []gateway.Route{support, sales, help}, []gateway.Route{support, sales}, clock().Add(90 * day)},
		{"two mailboxes, the longest first", []gateway.Route{sales, support}, []gateway.Route{sales, support}, clock().Add(90 * day)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := f.accept(t, envelope(test.to...), mixed("Hello", twoFiles()[0]))
			var routes []gateway.Route
			for _, d := range m.Deliveries {
				routes = append(routes, d.Route)
			}
			if !slices.Equal(routes, test.want) {
				t.Errorf("routes %+v", routes)
			}
			var want []gateway.Placement
			for _, r := range test.want {
				want = append(want, gateway.Placement{Kind: gateway.PlacementRoute, Place: r.Address, Expires: clock().Add(r.ExpireAfter)})
			}
			if !slices.Equal(m.Package.Placements, want) {
				t.Errorf("placements %+v", m.Package.Placements)
			}
			if !m.Package.Expires.Equal(test.expires) {
				t.Errorf("expires %v, want %v", m.Package.Expires, test.expires)
			}
			if told := "Available until " + test.expires.Format("2 January 2006"); !strings.Contains(m.copy, told) {
				t.Errorf("the notice does not say %q", told)
			}
			if len(m.Envelope.Recipients) != len(test.to) {
				t.Error("recipients of the envelope are lost")
			}
		})
	}
}

func TestAmbiguousMailIsSealedWhole(t *testing.T) {
	f := newFixture(t)
	sound := mixed("Hello", twoFiles()...)
	for name, mail := range map[string]string{
		"no boundary":     "Subject: Whole\r\nMessage-ID: <3@customer.example>\r\nContent-Type: multipart/mixed\r\n\r\ntext\r\n",
		"a bare LF":       strings.Replace(sound, "Hello\r\n", "Hello\n", 1),
		"a NUL":           strings.Replace(sound, "Hello", "Hel\x00lo", 1),
		"nearly boundary": strings.Replace(sound, "Hello", "--=_bx\r\nContent-Type: application/pdf\r\n\r\nsecret", 1),
	} {
		t.Run(name, func(t *testing.T) {
			m := f.accept(t, envelope(), mail)
			want := file{"message.eml", "message/rfc822", mail}
			got := f.open(t, m)
			if len(got) != 1 || got[0] != want {
				t.Fatalf("%d items, or another than the whole mail", len(got))
			}
			if !strings.HasPrefix(m.copy, received(m.ID)) || !strings.Contains(m.copy, "This mail could not be taken apart safely") {
				t.Errorf("the copy is\n%s", m.copy)
			}
		})
	}
}

func TestNamesAreShownOnlyIfSwitchedOn(t *testing.T) {
	for _, show := range []bool{true, false} {
		f := newFixture(t, showNames(show))
		m := f.accept(t, envelope(), mixed("Hello", twoFiles()...))
		if got := strings.Contains(m.copy, "invoice.pdf"); got != show {
			t.Errorf("show %v: the name is in the mail: %v", show, got)
		}
	}
}

func TestCopyTellsWhatANextHopMustKnow(t *testing.T) {
	const end = "Message-ID: <1@x>\r\n\r\n"
	tests := []struct {
		name, mail, from string
		client           bool // gave SMTPUTF8
		utf8, eightBit   bool
	}{
		{"ASCII", "Subject: x\r\n" + end + "text\r\n", "a@x.example", false, false, false},
		{"ASCII, with SMTPUTF8", "Subject: x\r\n" + end + "text\r\n", "a@x.example", true, false, false},
		{"8-bit body", "Subject: x\r\n" + end + "Grüße\r\n", "a@x.example", false, false, true},
		{"8-bit body, with SMTPUTF8", "Subject: x\r\n" + end + "Grüße\r\n", "a@x.example", true, false, true},
		{"raw header without SMTPUTF8", "Subject: Grüße\r\n" + end + "text\r\n", "a@x.example", false, false, false},
		{"UTF-8 header", "Subject: Grüße\r\n" + end + "text\r\n", "a@x.example", true, true, false},
		{"UTF-8 return path", "Subject: x\r\n" + end + "text\r\n", "jörg@x.example", true, true, false},
		{"null sender", "Subject: x\r\n" + end + "text\r\n", "", true, false, false},
		{"all", "Subject: Grüße\r\n" + end + "Grüße\r\n", "jörg@x.example", true, true, true},
	}
	f := newFixture(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := envelope()
			e.MailFrom, e.UTF8 = test.from, test.client
			m := f.accept(t, e, test.mail)
			if m.Copy.UTF8 != test.utf8 || m.Copy.EightBit != test.eightBit {
				t.Errorf("UTF8 %v, EightBit %v", m.Copy.UTF8, m.Copy.EightBit)
			}
			if m.Copy.MailFrom.Reveal() != test.from {
				t.Error("the return path is another")
			}
		})
	}
}

// TestMailsAreTakenInConcurrently is of use with the race detector, too.
func TestMailsAreTakenInConcurrently(t *testing.T) {
	f := newFixture(t)
	const mails = 8
	var group errgroup.Group
	for i := range mails {
		spooled := f.spooled(t, mixed(strings.Repeat("Long text.\r\n", 7000), file{"a", "application/pdf", fmt.Sprint("file ", i)}))
		group.Go(func() error {
			_, err := f.intake.Accept(t.Context(), envelope(), spooled)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, accepted := range f.database.mails {
		text, err := f.read(t, accepted.Copy)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range f.open(t, taken{accepted, string(text)}) {
			found[item.content] = true
		}
	}
	if len(f.database.mails) != mails || len(found) != mails {
		t.Errorf("%d mails were sent, %d committed, with %d different files", mails, len(f.database.mails), len(found))
	}
}
