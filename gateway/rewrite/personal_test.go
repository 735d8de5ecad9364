package rewrite

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"testing"

	"sealpost/gateway/policy/personal"
)

const (
	card       = "4111 1111 1111 1111"
	maskedCard = "XXXX XXXX XXXX 1111"
	iban       = "DE89 3704 0044 0532 0130 00"
)

func textRules(t testing.TB, actions map[string]Action) *TextRules {
	t.Helper()
	detectors, err := personal.New(personal.Options{Cards: true, IBANs: true, SSNs: true})
	if err != nil {
		t.Fatal(err)
	}
	return &TextRules{Detectors: detectors, Actions: actions}
}

func masking(t testing.TB) Rules {
	return Rules{Text: textRules(t, map[string]Action{personal.Card: ActionMask, personal.IBAN: ActionMask})}
}

func personally(t testing.TB, rules Rules, mail string) result {
	t.Helper()
	return way{rules: rules}.rewrite(t, []byte(mail), DefaultLimits())
}

// encoded returns text in a transfer encoding; in quoted-printable a line breaks inside of the first number.
func encodedText(t *testing.T, transfer, text string) string {
	t.Helper()
	var b bytes.Buffer
	switch transfer {
	case "base64":
		return base64.StdEncoding.EncodeToString([]byte(text))
	case "quoted-printable":
		q := quotedprintable.NewWriter(&b)
		if _, err := io.WriteString(q, text); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		return strings.Replace(b.String(), "4111 1111", "4111 =\r\n1111", 1)
	}
	return text
}

// Masking changes the numbers and nothing else, and the text as it came is sealed.
func TestMaskedTextDiffersInTheNumbersOnly(t *testing.T) {
	const plain = "Hello,\r\nmy card is " + card + ", thread::abc4111111111111111::\r\nhttps://shop.example/4111111111111111\r\nBye\r\n"
	for _, test := range []struct{ typ, text, want string }{
		{"text/plain; charset=utf-8", plain, strings.Replace(plain, card, maskedCard, 1)},
		{"text/plain; charset=iso-8859-1", "Gr\xfc\xdfe, Karte " + card + "\r\n", "Gr\xfc\xdfe, Karte " + maskedCard + "\r\n"},
		{"text/plain; charset=iso-8859-1", "Karte 4111\xa01111 1111\xa01111\r\n", "Karte XXXX\xa0XXXX XXXX\xa01111\r\n"},
		{"text/html", "<p>card <b>4111</b> 1111&nbsp;1111 11&#49;1</p>\r\n", "<p>card <b>XXXX</b> XXXX&nbsp;XXXX 11&#49;1</p>\r\n"},
		{"text/plain", "IBAN " + iban + " and card " + card + "\r\n", "IBAN XXXX XXXX XXXX XXXX XX30 00 and card " + maskedCard + "\r\n"},
	} {
		for _, transfer := range []string{"8bit", "quoted-printable", "base64"} {
			mail := "Subject: x\r\nContent-Type: " + test.typ + "\r\nContent-Transfer-Encoding: " + transfer + "\r\n\r\n" + encodedText(t, transfer, test.text)
			r := personally(t, masking(t), mail)
			name := "message.txt"
			if test.typ == "text/html" {
				name = "message.html"
			}
			if !slices.Equal(r.names, []string{name}) || string(r.files[0]) != test.text {
				t.Errorf("%s, %s: sealed %q %q", test.typ, transfer, r.names, r.files)
				continue
			}
			after := scanMail(t, string(r.mail))
			text, err := io.ReadAll(decoder(after.src, after.root))
			if err != nil {
				t.Fatal(err)
			}
			if start, end := commonEnds(text, []byte(test.want)); start+end < len(test.want) || !strings.Contains(string(text), "were masked") {
				t.Errorf("%s, %s: became %q", test.typ, transfer, text)
			}
		}
	}
}

func TestPersonalDataAreCounted(t *testing.T) {
	mail := "Subject: card " + card + "\r\n\r\ncard " + card + ", IBAN " + iban + "\r\n"
	r := personally(t, Rules{Text: textRules(t, nil)}, mail)
	if got := r.plan.Personal(); len(r.names) != 0 || got[personal.Card] != 2 || got[personal.IBAN] != 1 {
		t.Errorf("sealed %q, counted %v", r.names, got)
	}
	if r := personally(t, masking(t), "Subject: order 4711\r\n\r\norder number 4111111111111111\r\n"); len(r.names) != 0 {
		t.Errorf("an order number is masked: %q", r.mail)
	}
}

// TestAlternativeThatSaysNothing is no reason to seal the page that is masked.
func TestAlternativeThatSaysNothing(t *testing.T) {
	r := personally(t, masking(t), "Subject: x\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\nPlease use a reader for HTML.\r\n--B\r\n"+
		"Content-Type: text/html\r\n\r\n<p>card "+card+"</p>\r\n--B--\r\n")
	if !slices.Equal(r.names, []string{"message.html"}) || !bytes.Contains(r.mail, []byte(maskedCard)) {
		t.Errorf("sealed %q:\n%s", r.names, r.mail)
	}
}

// A body that must not stay takes its alternative with it.
func TestPersonalTextIsSealed(t *testing.T) {
	rules := Rules{Text: textRules(t, map[string]Action{personal.Card: ActionSeal})}
	mail := "Subject: x\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\ncard " + card +
		"\r\n--B\r\nContent-Type: text/html\r\n\r\n<p>the page says it as a picture</p>\r\n--B--\r\n"
	r := personally(t, rules, mail)
	if !slices.Equal(r.names, []string{"message.txt", "message.html"}) || bytes.Contains(r.mail, []byte("4111")) || bytes.Contains(r.mail, []byte("picture")) {
		t.Errorf("sealed %q:\n%s", r.names, r.mail)
	}
	if !bytes.Contains(r.mail, []byte("holds personal data")) {
		t.Errorf("the notice does not say why:\n%s", r.mail)
	}
	single := personally(t, rules, "Subject: x\r\n\r\ncard "+card+"\r\n")
	if !slices.Equal(single.names, []string{"message.txt"}) || bytes.Contains(single.mail, []byte("4111")) {
		t.Errorf("sealed %q:\n%s", single.names, single.mail)
	}
}

// Where a number cannot be masked exactly, the text is sealed rather than left.
func TestWhatCannotBeMaskedIsSealed(t *testing.T) {
	for name, mail := range map[string]string{
		"UTF-16":                  "Content-Type: text/plain; charset=utf-16le\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(wide("card "+card+"\r\n"))),
		"ISO-2022-JP":             "Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B%Q%9\x1b(B card " + card + "\r\n",
		"misspelt encoding":       "Content-Transfer-Encoding: 8-bit\r\n\r\ncard " + card + "\r\n",
		"unknown base64":          "Content-Transfer-Encoding: x-base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte("card "+card+"\r\n")),
		"broken base64":           "Content-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte("card "+card+", thank you\r\n")) + "\r\n-- \r\nA mailing list\r\n",
		"UTF-16 that has no mark": "Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(wide("card "+card+"\r\n"))),
		"UTF-16 called something": "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(wide("card "+card+"\r\n"))),
		"an unknown charset":      "Content-Type: text/plain; charset=x-none\r\n\r\ncard " + card + "\r\n",
		"many numbers":            "\r\n" + strings.Repeat("card "+card+"\r\n", maxMasked),
	} {
		r := personally(t, masking(t), "Subject: x\r\n"+mail)
		if !slices.Equal(r.names, []string{"message.txt"}) || bytes.Contains(r.mail, []byte("4111")) {
			t.Errorf("%s: sealed %q", name, r.names)
		}
	}
}

func wide(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		b.WriteByte(c)
		b.WriteByte(0)
	}
	return b.String()
}

func TestSubjectIsMasked(t *testing.T) {
	for subject, want := range map[string]string{
		"card " + card + " [thread::abc::]":                                           "card " + maskedCard + " [thread::abc::]",
		"=?utf-8?q?Karte_4111_1111_1111_1111_f=C3=BCr_Sie?=":                          "Karte " + maskedCard + " f\u00fcr Sie",
		"=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte("card "+card)) + "?=": "card " + maskedCard,
		"card 4111 1111\r\n 1111 1111":                                                "card XXXX XXXX XXXX 1111",
	} {
		mail := "Message-ID: <1@x.example>\r\nSubject: " + subject + "\r\nTo: support@example.com\r\n\r\nHello\r\n"
		r := personally(t, masking(t), mail)
		if !slices.Equal(r.names, []string{"subject.txt"}) || !strings.Contains(string(r.files[0]), "4111 1111 1111 1111") {
			t.Errorf("%q: sealed %q %q", subject, r.names, r.files)
			continue
		}
		msg := scanMail(t, string(r.mail))
		got := ""
		if err := msg.Fields(func(name, value string, _ int64) {
			if name == "subject" {
				got, _ = new(mime.WordDecoder).DecodeHeader(value)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q became %q, want %q", subject, got, want)
		}
		whole := way{rules: masking(t)}.rewrite(t, []byte("Subject: "+subject+"\r\nContent-Type: multipart/mixed\r\n\r\nx"), DefaultLimits())
		if len(whole.names) != 1 || bytes.Contains(whole.mail, []byte("4111")) {
			t.Errorf("%q: in a mail sealed whole: %q\n%s", subject, whole.names, whole.mail)
		}
	}
}

// A text that is masked in a signed mail breaks the signature, so that mail is evidence.
func TestMaskedSignedMail(t *testing.T) {
	mail := "Subject: x\r\nContent-Type: multipart/signed; boundary=S\r\n\r\n--S\r\n\r\ncard " + card +
		"\r\n--S\r\nContent-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nx\r\n-----END PGP SIGNATURE-----\r\n--S--\r\n"
	r := personally(t, masking(t), mail)
	if !slices.Equal(r.names, []string{"signed-message.eml", "message.txt"}) || bytes.Contains(r.mail, []byte("4111")) || bytes.Contains(r.mail, []byte("multipart/signed")) {
		t.Errorf("sealed %q:\n%s", r.names, r.mail)
	}
}

// Nothing that is sealed for its personal data goes on by another way.
func TestPersonalDataGoByNoOtherWay(t *testing.T) {
	sealing := Rules{Text: textRules(t, map[string]Action{personal.Card: ActionSeal}), InlineImage: DefaultInlineImage}
	long := strings.Repeat("<p>text</p>\r\n", 12000)
	for name, mail := range map[string]string{
		"a page that would be cut": "Subject: x\r\nContent-Type: text/html\r\n\r\n<p>card " + card + "</p>" + long,
		"a report": "Subject: x\r\nContent-Type: multipart/report; boundary=B\r\n\r\n--B\r\n\r\ncard " + card +
			"\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n--B--\r\n",
		"two subjects":      "Subject: a\r\nSubject: card " + card + "\r\nThread-Topic: card " + card + "\r\n\r\nHello\r\n",
		"a field or a text": "Subject: a\r\nSubject : card " + card + "\r\n\r\nHello\r\n",
		"a forwarded mail":  "Subject: x\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\ncard " + card + "\r\n",
	} {
		if r := personally(t, sealing, mail); bytes.Contains(r.mail, []byte("4111")) || len(r.names) == 0 {
			t.Errorf("%s: sealed %q:\n%.1500s", name, r.names, r.mail)
		}
	}
	for name, mail := range map[string]string{
		"an alternative that is not understood": "Subject: x\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\ncard " + card +
			"\r\n--B\r\nContent-Type: text/html\r\n\r\n<table><td>4111</td><td>1111</td><td>1111</td><td>1111</td></table>\r\n--B--\r\n",
		"an alternative that is understood in part": "Subject: x\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\ncard " + card + ", card 5500 0000 0000 0004" +
			"\r\n--B\r\nContent-Type: text/html\r\n\r\n<p>card 5500 0000 0000 0004<table><td>4111</td><td>1111</td><td>1111</td><td>1111</td></table>\r\n--B--\r\n",
		"an alternative of another type": "Subject: x\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\ncard " + card +
			"\r\n--B\r\nContent-Type: text/x-amp-html\r\n\r\n<p>card " + card + "</p>\r\n--B--\r\n",
		"a type of its own":               "Subject: x\r\nContent-Type: text/enriched\r\n\r\ncard " + card + "\r\n",
		"the subject of a forwarded mail": "Subject: x\r\nContent-Type: message/rfc822\r\n\r\nSubject: card " + card + "\r\n\r\nHello\r\n",
		"the name of a file":              "Subject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\nHello\r\n--B\r\nContent-Type: application/pdf; name=\"card " + card + ".pdf\"\r\n\r\nx\r\n--B--\r\n",
		"comments":                        "Subject: x\r\nComments: card " + card + "\r\nKeywords: card " + card + "\r\n\r\nHello\r\n",
	} {
		if r := personally(t, masking(t), mail); bytes.Contains(r.mail, []byte("4111")) || len(r.names) == 0 {
			t.Errorf("%s: sealed %q:\n%.1500s", name, r.names, r.mail)
		}
	}
	whole := way{rules: masking(t), whole: "a reason"}.rewrite(t, []byte("Subject: card "+card+"\r\n\r\nx\r\n"), DefaultLimits())
	if bytes.Contains(whole.mail, []byte("4111")) || whole.plan.Personal()[personal.Card] != 1 {
		t.Errorf("sealed whole: %s", whole.mail)
	}
	encodedLong := "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte("card "+card+strings.Repeat(" word", 200))) + "?="
	for line := range strings.SplitSeq(string(personally(t, masking(t), "Subject: "+encodedLong+"\r\n\r\nx\r\n").mail), "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line of %d octets", len(line))
		}
	}
}
