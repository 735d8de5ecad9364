package rewrite

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sealpost/gateway"
)

const (
	nestedHead = "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"
	nestedFile = "Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ninner text\r\n--i\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\nfile\r\n--i--\r\n"
)

func mixedMail(parts ...string) string {
	return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n"
}

// TestForwardedMessagesAreNumberedAsInIMAP is RFC 3501 section 6.4.5.
func TestForwardedMessagesAreNumberedAsInIMAP(t *testing.T) {
	for mail, want := range map[string]string{
		mixedMail("\r\ntext", nestedHead+nestedFile):                                  "1 2 2.1 2.2",
		mixedMail("\r\ntext", nestedHead+"\r\ntext"):                                  "1 2 2.1",
		mixedMail("\r\ntext", nestedHead+nestedHead+nestedFile):                       "1 2 2.1 2.1.1 2.1.2",
		nestedHead + nestedFile:                                                       "1 1.1 1.2",
		mixedMail("\r\ntext", nestedHead+"Content-Type: application/pdf\r\n\r\nfile"): "1 2",
	} {
		var paths []string
		for _, leaf := range rewriteMail(t, []byte(mail)).plan.Leaves() {
			paths = append(paths, leaf.Part.Path)
		}
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("%s, want %s, of\n%s", got, want, mail)
		}
	}
}

// TestOnlyTheAmbiguousForwardedMessageIsSealed: the others stay, whatever is wrong in that one.
func TestOnlyTheAmbiguousForwardedMessageIsSealed(t *testing.T) {
	for name, inner := range map[string]string{
		"no boundary":         "Content-Type: multipart/mixed\r\n\r\ntext\r\n",
		"two boundaries":      "Content-Type: multipart/mixed; boundary=x; boundary=y\r\n\r\n--x\r\n\r\ntext\r\n",
		"boundary that lacks": "Content-Type: multipart/mixed; boundary=x\r\n\r\ntext\r\n",
		"the same boundary":   "Content-Type: multipart/mixed; boundary=b\r\n\r\ntext\r\n",
		"encoded multipart":   "Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: base64\r\n\r\n--x--\r\n",
		"contradiction":       "Content-Type: text/plain\r\nContent-Type: application/pdf\r\n\r\ntext\r\n",
		"cut header":          "no field\r\nContent-Type: application/pdf\r\n\r\ntext\r\n",
		"nearly a boundary":   "\r\n--bc\r\nContent-Type: application/pdf\r\n\r\ntext\r\n",
		"file in a preamble":  "Content-Type: multipart/mixed; boundary=x\r\n\r\nbegin 644 a\r\n--x--\r\n",
	} {
		for _, wrapped := range []string{inner, nestedHead + inner} {
			r := rewriteMail(t, []byte(mixedMail("\r\ntext", nestedHead+wrapped, nestedHead+nestedFile)))
			if why, whole := r.plan.Whole(); whole {
				t.Errorf("%s: sealed whole: %s", name, why)
				continue
			}
			if len(r.files) != 2 || r.names[1] != "a.pdf" || !strings.Contains(string(r.files[0]), strings.TrimSpace(inner)) {
				t.Errorf("%s: sealed %q", name, r.names)
			}
			if !bytes.Contains(r.mail, []byte("inner text")) {
				t.Errorf("%s: the other message does not stay", name)
			}
		}
	}
}

// counting counts the bytes that are read of a mail.
type counting struct {
	*bytes.Reader
	read atomic.Int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

// TestAmbiguousForwardedMessagesCostLittle: however many there are, the mail is read a few times only.
func TestAmbiguousForwardedMessagesCostLittle(t *testing.T) {
	bad := nestedHead + "Content-Type: multipart/mixed\r\n\r\n" + strings.Repeat("text\r\n", 5000)
	mail := mixedMail(slices.Repeat([]string{bad}, 50)...)
	src := &counting{Reader: bytes.NewReader([]byte(mail))}
	msg, err := Scan(src, DefaultLimits())
	if err != nil || msg.Ambiguity != "" {
		t.Fatal(err, msg.Ambiguity)
	}
	if times := src.read.Load() / int64(len(mail)); times > maxScans {
		t.Errorf("the mail is read %d times", times)
	}
	if n := len(rewriteMail(t, []byte(mail)).files); n != 50 {
		t.Errorf("%d files", n)
	}
}

// TestLimitsOfSalesforceAreAboutTheOuterTextAlone: and so is the notice.
func TestLimitsOfSalesforceAreAboutTheOuterTextAlone(t *testing.T) {
	long := strings.Repeat("a line of text\r\n", 10000)
	for _, typ := range []string{"text/plain", "text/html"} {
		mail := mixedMail(nestedHead+"Content-Type: "+typ+"\r\n\r\n"+long, "Content-Type: application/pdf; name=a.pdf\r\n\r\nfile")
		r := rewriteMail(t, []byte(mail))
		if !slices.Equal(r.names, []string{"a.pdf"}) {
			t.Errorf("%s: sealed %q", typ, r.names)
		}
		if !bytes.Contains(r.mail, []byte(nestedHead+"Content-Type: "+typ+"\r\n\r\n"+long+"\r\n--b")) {
			t.Errorf("%s: the forwarded message is changed", typ)
		}
	}
}

// TestForwardedMessagesCanBeSealedWhole is the judge's choice.
func TestForwardedMessagesCanBeSealedWhole(t *testing.T) {
	msg, err := Scan(strings.NewReader(mixedMail("\r\ntext", nestedHead+nestedFile)), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(msg, Rules{Judge: func(part gateway.Part) (gateway.Verdict, string) {
		if part.Walked {
			return gateway.Seal, "a forwarded message"
		}
		return judge(part)
	}})
	if err != nil || len(plan.Items()) != 1 {
		t.Fatalf("%d items, %v", len(plan.Items()), err)
	}
	file, err := io.ReadAll(plan.Items()[0].Open())
	if err != nil || string(file) != "Subject: inner\r\n"+strings.TrimSuffix(nestedFile, "") {
		t.Errorf("%q, %v", file, err)
	}
}

// TestEndlessNestingStaysWithinItsLimits: what lies deeper than the limit is sealed as one file.
func TestEndlessNestingStaysWithinItsLimits(t *testing.T) {
	for _, depth := range []int{1, 20, 100, 400} {
		mail := mixedMail("\r\ntext", strings.Repeat(nestedHead, depth)+nestedFile)
		r := rewriteMail(t, []byte(mail))
		if why, whole := r.plan.Whole(); whole || len(r.files) != 1 {
			t.Errorf("%d messages: %d files, whole: %q", depth, len(r.files), why)
		}
		if depth > DefaultLimits().Depth && bytes.Contains(r.mail, []byte("inner text")) {
			t.Errorf("%d messages: what is too deep stays", depth)
		}
	}
}

func BenchmarkHostile(b *testing.B) {
	var deep strings.Builder
	for i := range 100 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=\"b%d.\"\r\n\r\n--b%d.\r\n", i, i)
	}
	for name, mail := range map[string]string{
		"multiparts":      deep.String() + "\r\ntext\r\n",
		"messages":        strings.Repeat(nestedHead, 100) + "\r\ntext\r\n",
		"parts":           "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 10000) + "--b--\r\n",
		"ambiguous":       mixedMail(slices.Repeat([]string{nestedHead + "Content-Type: multipart/mixed\r\n\r\ntext"}, 300)...),
		"header":          "X-Long: " + strings.Repeat("x\r\n ", 1<<20) + "\r\n\r\ntext\r\n",
		"header at limit": "Content-Type: text/plain" + strings.Repeat(";a=(b", 20000) + "\r\n\r\ntext\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(mail)))
			b.ReportAllocs()
			for b.Loop() {
				msg, err := Scan(strings.NewReader(mail), DefaultLimits())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := NewPlan(msg, Rules{Judge: judge}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAForwardedMessageThatIsSealedIsNotCutBesides: a file in a text of it goes with it, and is no item of its own.
func TestAForwardedMessageThatIsSealedIsNotCutBesides(t *testing.T) {
	const (
		block = "begin 644 a.bin\r\n#0V%T\r\n`\r\nend\r\n"
		risky = "Content-Type: text/plain\r\nContent-Type: application/pdf\r\n\r\ntext"
	)
	inner := "Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ntext\r\n" + block + "\r\n--i\r\n" + risky + "\r\n--i--"
	r := rewriteMail(t, []byte(mixedMail("\r\ntext", nestedHead+inner)))
	if len(r.files) != 1 || !strings.Contains(string(r.files[0]), block) {
		t.Errorf("sealed %q", r.names)
	}
	r = rewriteMail(t, []byte(mixedMail("\r\ntext", nestedHead+strings.Replace(inner, "Content-Type: application/pdf\r\n", "", 1))))
	if !slices.Equal(r.names, []string{"a.bin"}) || bytes.Contains(r.mail, []byte("begin 644")) {
		t.Errorf("sealed %q", r.names)
	}
}

// TestFileThatIsCalledAMessage has no header, or a name that no mail has: to an agent's computer it is that file.
func TestFileThatIsCalledAMessage(t *testing.T) {
	for name, part := range map[string]string{
		"a program":                "Content-Type: message/rfc822; name=a.com\r\n\r\nSubject: x\r\n\r\ntext",
		"a program behind a dot":   "Content-Type: message/rfc822\r\nContent-Disposition: inline; filename=\"a.hta. \"\r\n\r\nSubject: x\r\n\r\ntext",
		"a PDF with a first field": "Content-Type: message/rfc822; name=x.pdf\r\n\r\n%PDF-1.4: x\r\n\r\ntext",
		"no header":                "Content-Type: message/rfc822\r\n\r\nX5O!P%@AP\r\n",
		"an empty header":          "Content-Type: message/rfc822\r\n\r\n\r\nX5O!P%@AP\r\n",
	} {
		r := rewriteMail(t, []byte(mixedMail("\r\ntext", part)))
		if why, whole := r.plan.Whole(); whole || len(r.files) != 1 {
			t.Errorf("%s: %d files, whole: %q", name, len(r.files), why)
		}
	}
	for _, name := range []string{"Invoice No. 5", "mail.EML", "Re: version 1.2", "forwarded"} {
		r := rewriteMail(t, []byte(mixedMail("\r\ntext", "Content-Type: message/rfc822; name=\""+name+"\"\r\n\r\nSubject: x\r\n\r\ntext")))
		if len(r.files) != 0 {
			t.Errorf("%q is sealed", name)
		}
	}
}
