package tnef

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// listed is a file as a test expects it.
type listed struct{ name, mediaType, contentID, content string }

// read lists a stream, opens every file and checks that it has exactly the size that was listed.
func read(t testing.TB, raw []byte) ([]listed, error) {
	t.Helper()
	files, err := Read(bytes.NewReader(raw))
	var out []listed
	for _, f := range files {
		content, err := io.ReadAll(f.Open(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("open a listed file: %v", err)
		}
		if int64(len(content)) != f.Size {
			t.Fatalf("a file of %d octets was listed with %d", len(content), f.Size)
		}
		out = append(out, listed{f.Name, f.Type, f.ContentID, string(content)})
	}
	return out, err
}

const sampleRTF = `{\rtf1\ansi\ansicpg1252\deff0\deflang1033{\fonttbl{\f0\fswiss\fcharset0 Arial;}}` + "\r\n" +
	`\pard hello hello hello world\par` + "\r\n}"

// rich is a stream with some of everything.
func rich() []byte {
	inner := stream(1252, messageProps(binaryProp(idRTFCompressed, compress(sampleRTF)), wideString(idBody, "innen")),
		begin(), title("inner.txt"), data("inner file"))
	guid := make([]byte, 16)
	named := join(le16(typeString8), le16(0x8001), guid, le32(1), le32(10), padded(wideOctets("name\x00")),
		le32(1), le32(3), padded([]byte("abc")))
	numbered := join(le16(typeLong), le16(0x8002), guid, le32(0), le32(0x8501), le32(7))
	many := join(le16(typeUnicode|multiValued), le16(0x3a58), le32(2),
		le32(2), padded(wideOctets("a")), le32(6), padded(wideOctets("bcd")))
	numbers := join(le16(0x0002|multiValued), le16(0x3a59), le32(3), padded(le16(1)), padded(le16(2)), padded(le16(3)))
	return stream(1252,
		attribute(levelMessage, 0x78008, []byte("IPM.Note\x00")),
		attribute(levelMessage, 0x2800c, []byte("plain text\x00")),
		messageProps(long(idInternetCPID, 65001), named, numbered, many, numbers,
			join(le16(0x000b), le16(0x0e1f), le32(1)), join(le16(0x0040), le16(0x3007), make([]byte, 8)),
			binaryProp(idRTFCompressed, compress(sampleRTF)),
			binaryProp(idHTML, "<p>Gr\xfc\xdfe</p>")),
		attribute(levelMessage, 0x69004, []byte("a table of recipients")),
		begin(), title("REPORT~1.PDF"), data("%PDF-1.7 report"),
		attachProps(string8(idMimeTag, "application/pdf"), wideString(idLongFilename, "Отчёт 2026 📎.pdf"),
			string8(idContentID, "<part1@mail.example>"), string8(idLongFilename, "????? 2026 ??.pdf")),
		begin(), title("empty.bin"), data(""),
		embedded(inner),
		begin(), title("ole"), attachProps(long(0x3705, 6), object("\x0b"+embeddedMessage[1:], "\xd0\xcf\x11\xe0 storage")),
	)
}

func richFiles() []listed {
	return []listed{
		{"message.txt", "text/plain", "", "plain text"},
		{"message.rtf", "application/rtf", "", sampleRTF},
		{"message.html", "text/html", "", "<p>Gr\xfc\xdfe</p>"},
		{"Отчёт 2026 📎.pdf", "application/pdf", "part1@mail.example", "%PDF-1.7 report"},
		{"empty.bin", "", "", ""},
		{"message.rtf", "application/rtf", "", sampleRTF},
		{"message.txt", "text/plain", "", "innen"},
		{"inner.txt", "", "", "inner file"},
		{"ole", "", "", "\xd0\xcf\x11\xe0 storage"},
	}
}

func TestIs(t *testing.T) {
	for head, want := range map[string]bool{
		"\x78\x9f\x3e\x22": true, "\x78\x9f\x3e\x22more": true, "\x78\x9f\x3e": false, "": false,
		"\x22\x3e\x9f\x78": false, "PK\x03\x04": false,
	} {
		if got := Is([]byte(head)); got != want {
			t.Errorf("Is(%q) = %v", head, got)
		}
	}
}

func TestEveryFileIsListedWithItsExactBytes(t *testing.T) {
	got, err := read(t, rich())
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, richFiles())
}

func compare(t *testing.T, got, want []listed) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %q", want[i])
		case i >= len(want):
			t.Errorf("too many: %q", got[i])
		case got[i] != want[i]:
			t.Errorf("file %d\n got %q\nwant %q", i, got[i], want[i])
		}
	}
}

func TestForms(t *testing.T) {
	file := func(name, content string) []listed { return []listed{{name, "", "", content}} }
	cases := map[string]struct {
		raw  []byte
		want []listed
	}{
		"nothing":           {stream(0), nil},
		"no title":          {stream(0, begin(), data("x")), file("", "x")},
		"no beginning":      {stream(0, title("a"), data("x")), file("a", "x")},
		"data before title": {stream(0, begin(), data("x"), title("a")), file("a", "x")},
		"data in a property": {stream(0, begin(), attachProps(binaryProp(idAttachData, "x\x00"), string8(idAttachFilename, "a"))),
			file("a", "x\x00")},
		"two data": {stream(0, begin(), title("a"), data("x"), attachProps(binaryProp(idAttachData, "y"))),
			append(file("a", "x"), file("a", "y")...)},
		"no data": {stream(0, begin(), title("a"), attachProps(string8(0x370d, `\\host.example\a`))), nil},
		"long name wins": {stream(0, begin(), title("A~1"), data("x"), attachProps(string8(idDisplayName, "shown"),
			string8(idAttachFilename, "B~1"), string8(idLongFilename, "long name.txt"))), file("long name.txt", "x")},
		"8.3 name": {stream(0, begin(), title("title"), data("x"), attachProps(string8(idAttachFilename, "B~1"))), file("B~1", "x")},
		"display name": {stream(0, begin(), data("x"), attachProps(string8(idDisplayName, "shown"))),
			file("shown", "x")},
		"transport name":       {stream(0, begin(), data("x"), attribute(levelAttachment, 0x69001, []byte("t\x00"))), file("t", "x")},
		"name with NUL within": {stream(0, begin(), title("a.txt\x00.exe"), data("x")), file("a.txt\x00.exe", "x")},
		"UTF-16 before the code page's": {stream(1252, begin(), data("x"),
			attachProps(wideString(idLongFilename, "Ω"), string8(idLongFilename, "?"))), file("Ω", "x")},
		"cyrillic":       {stream(1251, begin(), title("\xd2\xe5\xf1\xf2"), data("x")), file("Тест", "x")},
		"japanese":       {stream(932, begin(), title("\x83\x65\x83\x58\x83\x67"), data("x")), file("テスト", "x")},
		"unknown page":   {stream(4711, begin(), title("\xe4"), data("x")), file("ä", "x")},
		"UTF-8 unsaid":   {stream(0, begin(), title("ä"), data("x")), file("ä", "x")},
		"page of bodies": {stream(0, messageProps(long(idInternetCPID, 1251)), begin(), title("\xd2"), data("x")), file("Т", "x")},
		"page of the outer message": {stream(1251, embedded(stream(0, begin(), title("\xd2"), data("x")))),
			file("Т", "x")},
		"odd UTF-16": {stream(0, begin(), data("x"), attachProps(variable(idLongFilename, typeUnicode, []byte("a\x00b")))),
			file("a\ufffd", "x")},
		"filler": {join(stream(0, begin(), data("x")), []byte("\r\n\x00\x00")), file("", "x")},
		"empty bodies": {stream(0, attribute(levelMessage, 0x2800c, []byte{0}), messageProps(binaryProp(idRTFCompressed, ""),
			wideString(idBody, ""), binaryProp(idHTML, ""))), nil},
		"bodies": {stream(0, messageProps(string8(idBody, "eins\x00"), wideString(idHTML, "<b>Ω</b>"), string8(idHTML, "<i>"),
			binaryProp(idRTFCompressed, stored("{\\rtf1}")))),
			[]listed{{"message.txt", "text/plain", "", "eins\x00"}, {"message.html", "text/html", "", "<b>Ω</b>"},
				{"message.html", "text/html", "", "<i>"}, {"message.rtf", "application/rtf", "", "{\\rtf1}"}}},
		"body without NUL": {stream(0, attribute(levelMessage, 0x2800c, []byte("a"))),
			[]listed{{"message.txt", "text/plain", "", "a"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, c.raw)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, c.want)
		})
	}
}

func TestDamagedStreamsAreNotRead(t *testing.T) {
	badSum := data("x")
	badSum[len(badSum)-1]++
	claims := func(property []byte, at, octets int) []byte {
		copy(property[at:], le32(octets))
		return stream(0, begin(), attachProps(property))
	}
	guid := make([]byte, 16)
	cases := map[string][]byte{
		"empty":           {},
		"no key":          []byte(signature),
		"no signature":    []byte("PK\x03\x04 and more"),
		"junk at end":     join(stream(0), []byte("junk")),
		"junk behind NUL": join(stream(0), []byte("\x00\x00junk")),
		"level":           stream(0, attribute(3, 0x6800f, nil)),
		"checksum":        stream(0, begin(), badSum),
		"two long names":  stream(0, begin(), data("x"), attachProps(string8(idLongFilename, "a"), string8(idLongFilename, "b"))),
		"two titles":      stream(0, begin(), data("x"), title("a"), title("b")),
		"huge name":       stream(0, begin(), title(strings.Repeat("a", maxText)), data("x")),
		"huge names":      stream(0, bytes.Repeat(join(begin(), title(strings.Repeat("a", maxText-1))), maxTexts/maxText+1)),
		"count":           stream(0, begin(), attribute(levelAttachment, 0x69005, le32(1))),
		"count huge":      stream(0, begin(), attribute(levelAttachment, 0x69005, le32(-1))),
		"count small":     stream(0, begin(), attribute(levelAttachment, 0x69005, join(le32(0), string8(idDisplayName, "a")))),
		"value count":     claims(string8(idLongFilename, "a"), 4, 2),
		"value length":    claims(string8(idLongFilename, "a"), 8, -1),
		"object length":   claims(object(embeddedMessage, ""), 8, 15),
		"unknown type":    stream(0, messageProps(join(le16(0x00fd), le16(0x1234), le32(1)))),
		"nulls":           stream(0, messageProps(join(le16(0x0001|multiValued), le16(0x1234), le32(-1)))),
		"property name":   stream(0, messageProps(join(le16(typeLong), le16(0x8000), guid, le32(2), le32(1), le32(1)))),
		"property name's length": stream(0, messageProps(
			join(le16(typeLong), le16(0x8000), guid, le32(1), le32(-1), le32(1)))),
		"embedded is none":    stream(0, embedded([]byte("not a message"))),
		"embedded is cut":     stream(0, embedded(rich()[:200])),
		"embedded checksum":   stream(0, embedded(stream(0, begin(), badSum))),
		"compressed RTF":      stream(0, messageProps(binaryProp(idRTFCompressed, "short"))),
		"code page too short": stream(0, attribute(levelMessage, 0x69007, []byte{1})),
	}
	for name, raw := range cases {
		t.Run(name, func(t *testing.T) {
			if got, err := read(t, raw); !errors.Is(err, ErrDamaged) || got != nil {
				t.Errorf("%d files, error %v", len(got), err)
			}
		})
	}
}

func TestAStreamCutAnywhereIsDamaged(t *testing.T) {
	raw := rich()
	whole := map[int]bool{len(raw): true} // where an attribute ends
	for at := 6; at < len(raw); {
		whole[at] = true
		at += 11 + int(uint32(raw[at+5])|uint32(raw[at+6])<<8)
	}
	for n := range raw {
		if _, err := Read(bytes.NewReader(raw[:n])); errors.Is(err, ErrDamaged) == whole[n] {
			t.Errorf("cut at %d of %d: %v", n, len(raw), err)
		}
	}
}

// One altered octet in the data of an attribute is always found, by the checksum if by nothing else.
func TestAlteredDataAreDamaged(t *testing.T) {
	raw := rich()
	for at := 6; at < len(raw); {
		size := int(uint32(raw[at+5]) | uint32(raw[at+6])<<8)
		for i := at + 9; i < at+9+size; i++ {
			raw[i] ^= 0x10
			if _, err := Read(bytes.NewReader(raw)); !errors.Is(err, ErrDamaged) {
				t.Fatalf("octet %d altered: %v", i, err)
			}
			raw[i] ^= 0x10
		}
		at += 11 + size
	}
}

func TestLimits(t *testing.T) {
	nested := func(depth int) []byte {
		raw := stream(0, begin(), data("deep"))
		for range depth {
			raw = stream(0, embedded(raw))
		}
		return raw
	}
	cases := map[string]struct {
		raw   []byte
		files int // -1: damaged
	}{
		"depth":           {nested(maxDepth), 1},
		"deeper":          {nested(maxDepth + 1), -1},
		"much deeper":     {nested(200), -1},
		"files":           {stream(0, bytes.Repeat(join(begin(), data("x")), maxFiles)), maxFiles},
		"more files":      {stream(0, bytes.Repeat(join(begin(), data("x")), maxFiles+1)), -1},
		"files in one":    {stream(0, bytes.Repeat(data("x"), maxFiles+1)), -1},
		"bodies":          {stream(0, bytes.Repeat(attribute(1, 0x2800c, []byte("x")), maxFiles+1)), -1},
		"attachments":     {stream(0, bytes.Repeat(begin(), maxFiles+1)), -1},
		"attributes":      {stream(0, bytes.Repeat(attribute(1, 0x1, nil), maxAttributes-2)), 0},
		"more attributes": {stream(0, bytes.Repeat(attribute(1, 0x1, nil), maxAttributes-1)), -1},
		"properties":      {stream(0, attribute(1, 0x69003, join(le32(maxProperties), bytes.Repeat(long(1, 1), maxProperties)))), 0},
		"more properties": {stream(0, attribute(1, 0x69003, join(le32(maxProperties+1), bytes.Repeat(long(1, 1), maxProperties+1)))), -1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			files, err := Read(bytes.NewReader(c.raw))
			if c.files < 0 {
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("%d files, error %v", len(files), err)
				}
				return
			}
			if err != nil || len(files) != c.files {
				t.Errorf("%d files, error %v", len(files), err)
			}
		})
	}
}

func TestErrorsOfTheReaderPassThrough(t *testing.T) {
	raw := rich()
	files, err := Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []error{errors.New("broken"), io.ErrUnexpectedEOF} {
		for n := range raw {
			after := func() io.Reader { return io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken)) }
			if _, err := Read(after()); !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
				t.Fatalf("%v at %d: %v", broken, n, err)
			}
			for i, f := range files {
				// From the file's last octets on, it may be complete before the error is seen.
				within := f.Size > 0 && int64(n) < f.place.offset+f.place.length-4
				if _, err := io.ReadAll(f.Open(after())); within && (!errors.Is(err, broken) || errors.Is(err, ErrDamaged)) {
					t.Fatalf("%v at %d in file %d: %v", broken, n, i, err)
				}
			}
		}
	}
}

func TestCodePages(t *testing.T) {
	cases := map[int]struct{ octets, want string }{
		437: {"\x81", "ü"}, 850: {"\x9b", "ø"}, 866: {"\x8f", "П"}, 874: {"\xa1", "ก"}, 932: {"\x93\xfa", "日"},
		936: {"\xc8\xd5", "日"}, 949: {"\xc0\xcf", "일"}, 950: {"\xa4\xe9", "日"}, 1250: {"\xec", "ě"}, 1253: {"\xe1", "α"},
		1254: {"\xfd", "ı"}, 1255: {"\xe0", "א"}, 1256: {"\xc7", "ا"}, 1257: {"\xe0", "ą"}, 1258: {"\xfe", "₫"},
		20127: {"a", "a"}, 20866: {"\xf0", "П"}, 28592: {"\xb1", "ą"}, 28605: {"\xa4", "€"}, 50220: {"\x1b$BF|\x1b(B", "日"},
		51932: {"\xc6\xfc", "日"}, 51949: {"\xc0\xcf", "일"}, 52936: {"~{HU~}", "日"}, 54936: {"\xc8\xd5", "日"},
		65001: {"日", "日"}, 1252: {"\x80", "€"}, 10000: {"\x8a", "ä"},
	}
	for page, c := range cases {
		files, err := Read(bytes.NewReader(stream(page, begin(), title(c.octets), data("x"))))
		if err != nil || files[0].Name != c.want {
			t.Errorf("%d: %v, error %v, want %q", page, files, err, c.want)
		}
	}
}

func TestOpenIsAWellBehavedReader(t *testing.T) {
	raw := rich()
	files, err := Read(iotest.OneByteReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range richFiles() {
		if err := iotest.TestReader(files[i].Open(bytes.NewReader(raw)), []byte(want.content)); err != nil {
			t.Errorf("file %d: %v", i, err)
		}
		if err := iotest.TestReader(files[i].Open(iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader(raw)))), []byte(want.content)); err != nil {
			t.Errorf("file %d, octet by octet: %v", i, err)
		}
		in := bytes.NewReader(raw[:files[i].place.offset+files[i].place.length])
		if _, err := io.ReadAll(files[i].Open(in)); err != nil {
			t.Errorf("file %d needs what stands behind it: %v", i, err)
		}
		_, err := io.ReadAll(files[i].Open(bytes.NewReader(raw[:files[i].place.offset])))
		if want.content != "" && !errors.Is(err, ErrDamaged) {
			t.Errorf("file %d out of a stream that is cut: %v", i, err)
		}
	}
}

func TestNoContentInErrors(t *testing.T) {
	raw := stream(0, begin(), data("SECRET"), attachProps(string8(idLongFilename, "SECRET1"), string8(idLongFilename, "SECRET2")))
	if _, err := Read(bytes.NewReader(raw)); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("error %v", err)
	}
}
