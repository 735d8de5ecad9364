package personal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var errTest = errors.New("test")

func detectors(t testing.TB, patterns map[string]string) *Detectors {
	t.Helper()
	d, err := New(Options{Cards: true, IBANs: true, SSNs: true, Patterns: patterns})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// all lists the matches as DETECTOR:TEXT, the ranges of one apart by |.
func all(t testing.TB, find func(io.Reader, func(Match) error) error, text string) []string {
	t.Helper()
	var list []string
	err := find(strings.NewReader(text), func(m Match) error {
		var pieces []string
		for _, r := range m.Ranges {
			pieces = append(pieces, text[r[0]:r[1]])
		}
		list = append(list, m.Detector+":"+strings.Join(pieces, "|"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func check(t *testing.T, find func(io.Reader, func(Match) error) error, text string, want []string) {
	t.Helper()
	if got := all(t, find, text); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%.200q (%d bytes):\n got %.300q\nwant %q", text, len(text), got, want)
	}
}

func TestFind(t *testing.T) {
	d := detectors(t, nil)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"no digits", nil},
		{"4111 1111 1111 1111", []string{"card:4111 1111 1111 1111"}},
		{"my card is 4111-1111-1111-1111.", []string{"card:4111-1111-1111-1111"}},
		{"4111\u00a01111\u00a01111\u00a01111", []string{"card:4111\u00a01111\u00a01111\u00a01111"}},
		{"5555555555554444,5105105105105100", []string{"card:5555555555554444", "card:5105105105105100"}},
		{"4111 1111 1111 1111 5555 5555 5555 4444", []string{"card:4111 1111 1111 1111", "card:5555 5555 5555 4444"}},
		{"4111 1111 1111 1111 12/27 737", []string{"card:4111 1111 1111 1111"}},
		{"3782 822463 10005", []string{"card:3782 822463 10005"}},
		{"4111 1111 1111 1112", nil},
		{"4111 1111\r\n> 1111 1111", []string{"card:4111 1111\r\n> 1111 1111"}},
		{"4111\t1111\t1111\t1111", nil},
		{"4222222222222", nil},
		{"Visa 4222222222222", []string{"card:4222222222222"}},
		{"Order no. 4111111111111111", nil},
		{"#4111111111111111", nil},
		{"Card no. 4111111111111111", []string{"card:4111111111111111"}},
		{"order paid by visa 4111111111111111", []string{"card:4111111111111111"}},
		{"Thanks for the order. 4111111111111111", []string{"card:4111111111111111"}},
		{"A4111111111111111", nil},
		{"4111111111111111x", nil},
		{"IBAN de89370400440532013000", []string{"iban:de89370400440532013000"}},
		{"DE89 3704 0044 0532 0130 00 BIC", []string{"iban:DE89 3704 0044 0532 0130 00"}},
		{"GB29 NWBK 6016 1331 9268 19", []string{"iban:GB29 NWBK 6016 1331 9268 19"}},
		{"DE89 3704 0044 0532 0130 01", nil},
		{"078-05-1120", []string{"ssn:078-05-1120"}},
		{"666-05-1120 000-05-1120 900-05-1120 078-00-1120 078-05-0000", nil},
		{"078051120", nil},
		{"my SSN is 078051120", []string{"ssn:078051120"}},
		{"078 05 1120 is my social security number", []string{"ssn:078 05 1120"}},
		{"1078-05-1120 078-05-11201 078-05-1120-1", nil},
	} {
		check(t, d.Find, c.text, c.want)
	}
}

func TestFindHTML(t *testing.T) {
	d := detectors(t, map[string]string{"name": "Anna"})
	for _, c := range []struct {
		text string
		want []string
	}{
		{"<p>4111 1111 1111 1111</p>", []string{"card:4111 1111 1111 1111"}},
		{"4111<b> 1111</b> <span x='>'>1111</span> 1111", []string{"card:4111| 1111| |1111| 1111"}},
		{"4111&nbsp;1111&nbsp1111&#160;111&#49;", []string{"card:4111&nbsp;1111&nbsp1111&#160;111&#49;"}},
		{"4111\n  1111\n1111 1111", []string{"card:4111\n|1111\n1111 1111"}},
		{"4111 1111<br>1111 1111", []string{"card:4111 1111|1111 1111"}},
		{"<td>4111</td><td>1111</td><td>1111</td><td>1111</td>", nil},
		{"4111 1111<p>1111 1111", nil},
		{"<!-- 4111 1111 1111 1111 --><style>4111 1111 1111 1111</style><script>4111 1111 1111 1111</script >", nil},
		{"<script>'</scripty>'+4111111111111111</SCRIPT>Anna", []string{"name:Anna"}},
		{`<a href="x?4111 1111 1111 1111" title='4111 1111 1111 1111'>Anna</a>`, []string{"name:Anna"}},
		{`<a href=4111111111111111>Anna`, []string{"name:Anna"}},
		{"<!-->Anna<!--->Anna<!--x--!>Anna<? 4111111111111111 >", []string{"name:Anna", "name:Anna", "name:Anna"}},
		{"<td>Order number</td><td>4111111111111111</td>", nil},
		{"An<wbr>na & An&#110;a &lt;4111111111111111@example.com&gt;", []string{"name:An|na", "name:An&#110;a"}},
		{"1 < 2 Anna <3", []string{"name:Anna"}},
	} {
		check(t, d.FindHTML, c.text, c.want)
	}
}

func TestNeverMasked(t *testing.T) {
	d := detectors(t, map[string]string{"any": `\S+`, "line": `start.*end`})
	none := detectors(t, nil)
	for _, kept := range []string{
		"thread::h5QyGRQ2VZ2fj2eyBKXoxQ8::",
		"thread::4111111111111111::",
		"ref:_00D4111111111111111._5004111111111111111:ref",
		"ref:!00D4111111111111111.!5004111111111111111:ref",
		"https://files.example.com/p/4111111111111111#078-05-1120",
		"HTTP://example.com/4111-1111-1111-1111?q=(4111111111111111)",
		"ftp://example.com/4111111111111111",
		"WWW.shop.example?n=4111111111111111",
		"shop.example/2026/4111111111111111",
		"4111111111111111@example.com",
		"<4111111111111111@localhost>",
		"<CA+DE89370400440532013000@mail.example.com>",
	} {
		check(t, d.Find, kept, nil)
		check(t, d.Find, "start "+kept+" end", []string{"line:start | end"})
		check(t, none.Find, "a "+kept+" and. 4111111111111111", []string{"card:4111111111111111"})
	}
	check(t, d.FindHTML, `x<b>&lt;4111111111111111@localhost&gt;</b>`, []string{"any:x"})
}

func TestNumberBehindADotAndASlash(t *testing.T) {
	check(t, detectors(t, nil).Find, "Kredit.Karte/4111111111111111, bitte", []string{"card:4111111111111111"})
}

func TestLinkAcrossWindows(t *testing.T) {
	d := detectors(t, nil)
	for offset := range 40 {
		text := strings.Repeat("x", core-20-offset) + " https://" + strings.Repeat("a/", 3*core) + "/4111111111111111 4111111111111111"
		check(t, d.Find, text, []string{"card:4111111111111111"})
	}
}

func TestMatchesAtWindowEdges(t *testing.T) {
	d := detectors(t, map[string]string{"name": `\bAnna\b`, "begin": `^Begin`})
	text := " 4111 1111 1111 1111 Anna\nBegin xAnnay xBegin "
	for offset := range 80 {
		check(t, d.Find, strings.Repeat("x", core-offset)+text+strings.Repeat("y ", core),
			[]string{"card:4111 1111 1111 1111", "name:Anna", "begin:Begin"})
		check(t, d.FindHTML, strings.Repeat("<i>x</i>", core-offset)+" 4111 <b>1111</b> 1111&nbsp;1111 "+strings.Repeat("y ", core),
			[]string{"card:4111 |1111| 1111&nbsp;1111"})
	}
}

func TestOverlaps(t *testing.T) {
	d := detectors(t, map[string]string{"four": `x 4111`, "whole": `DE89[0-9 ]+`})
	check(t, d.Find, "x 4111 1111 1111 1111", []string{"four:x 4111", "card: 1111 1111 1111"})
	check(t, d.Find, "DE89 3704 0044 0532 0130 00", []string{"iban:DE89 3704 0044 0532 0130 00"})
	check(t, d.Find, "DE89 3704 0044 0532 0130 00 1", []string{"whole:DE89 3704 0044 0532 0130 00 1"})
}

func TestLongPatternInPieces(t *testing.T) {
	d := detectors(t, map[string]string{"long": `ü+`})
	text := "x" + strings.Repeat("ü", 300)
	var sizes []int64
	if err := d.Find(strings.NewReader(text), func(m Match) error {
		sizes = append(sizes, m.Ranges[0][1]-m.Ranges[0][0])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(sizes) != "[256 256 88]" {
		t.Error(sizes)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, expression := range map[string]string{
		"card": "x", "": "x", "Upper": "x", "a_b": "x", strings.Repeat("a", 33): "x",
		"open": "(", "star": "x*", "edge": `\b`, "either": "x|", "begin": "^",
	} {
		_, err := New(Options{Patterns: map[string]string{name: expression}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pattern %q", name)) {
			t.Errorf("%q %q: %v", name, expression, err)
		}
	}
	for _, expression := range []string{"x+", "a|b", "^x", "(?i)x{2}", "[a-z].", `\d\b`} {
		if _, err := New(Options{Patterns: map[string]string{strings.Repeat("a", 32): expression}}); err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	d := detectors(t, nil)
	text := "4111111111111111 "
	for _, find := range []func(io.Reader, func(Match) error) error{d.Find, d.FindHTML} {
		if err := find(iotest.ErrReader(errTest), nil); !errors.Is(err, errTest) {
			t.Error(err)
		}
		if err := find(strings.NewReader(text), func(Match) error { return errTest }); !errors.Is(err, errTest) {
			t.Error(err)
		}
		if err := find(stuck{}, nil); !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	}
	if err := d.CopyMasked(io.Discard, strings.NewReader(text), strings.NewReader("41"), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestMask(t *testing.T) {
	d := detectors(t, map[string]string{"name": `Änne K\S+`})
	for _, c := range []struct{ detector, match, want string }{
		{Card, "4111 1111-1111\u00a01234", "XXXX XXXX-XXXX\u00a01234"},
		{IBAN, "de89 3704 0044 0532 0130 00", "XXXX XXXX XXXX XXXX XX30 00"},
		{SSN, "078-05-1120", "XXX-XX-XXXX"},
		{"name", "Änne Kö\xff", "XXXXX XXXX"},
	} {
		if got := string(d.Mask(c.detector, []byte(c.match))); got != c.want {
			t.Errorf("%q: %q, want %q", c.match, got, c.want)
		}
	}
	got := string(d.MaskHTML(Card, []byte("&#52;&#x31;&#0049;1&nbsp;1111 1111 &#49;234")))
	if got != "&#88;&#088;&#0088;X&nbsp;XXXX XXXX &#49;234" {
		t.Error(got)
	}
	if got := string(d.MaskHTML("name", []byte("&Auml;nne&pi;"))); got != "&#088;XXXXXXX" {
		t.Error(got)
	}
}

func TestCopyMasked(t *testing.T) {
	d := detectors(t, nil)
	var out bytes.Buffer
	text := "Visa 4111 1111 1111 1111, SSN 078-05-1120, thread::4111111111111111::"
	count := 0
	if err := d.CopyMasked(&out, strings.NewReader(text), strings.NewReader(text), func(Match) error { count++; return nil }); err != nil {
		t.Fatal(err)
	}
	if out.String() != "Visa XXXX XXXX XXXX 1111, SSN XXX-XX-XXXX, thread::4111111111111111::" || count != 2 {
		t.Error(out.String(), count)
	}
	out.Reset()
	text = "<p>4111<b> 1111</b> &#49;1<i>11 1</i>234x</p><p>4111<b> 1111</b> &#49;1<i>11 1</i>111</p>"
	if err := d.CopyMaskedHTML(&out, strings.NewReader(text), strings.NewReader(text), nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "<p>4111<b> 1111</b> &#49;1<i>11 1</i>234x</p><p>XXXX<b> XXXX</b> &#88;X<i>XX 1</i>111</p>" {
		t.Error(out.String())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	d := detectors(t, map[string]string{"any": `[a-z]+`})
	for name, src := range map[string]source{
		"text": &plainText{r: io.LimitReader(repeat("4111 1111 1111 1111 x "), 4<<20)},
		"html": &htmlText{r: io.LimitReader(repeat("4111&#49;111<b>1111</b>1111 x<p>"), 4<<20)},
		"link": &htmlText{r: io.LimitReader(repeat("&#111;https://"), 4<<20)},
		"tag":  &htmlText{r: io.LimitReader(repeat("<aaaaaaaaaa"), 4<<20)},
	} {
		s := scanner{d: d, found: func(Match) error { return nil }}
		if err := s.run(src); err != nil {
			t.Fatal(err)
		}
		if cap(s.w.text) != full+slack || cap(s.w.runs) > 2*full || cap(s.findings) > 2*full {
			t.Errorf("%s: %d bytes of text, %d runs, %d findings", name, cap(s.w.text), cap(s.w.runs), cap(s.findings))
		}
		if h, ok := src.(*htmlText); ok && cap(h.saved) > 2*maxReference {
			t.Errorf("%s: %d bytes of markup", name, cap(h.saved))
		}
	}
}

// endless is a text that repeats itself.
type endless struct {
	text string
	at   int
}

func repeat(text string) *endless { return &endless{text: text} }

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], e.text[e.at:])
		n += k
		e.at = (e.at + k) % len(e.text)
	}
	return n, nil
}
