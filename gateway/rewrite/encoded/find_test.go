package encoded

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// found is what became of a text.
type found struct {
	blocks []Block
	files  []string
	kept   string
	more   bool
}

func find(t *testing.T, text string, limit int) found {
	t.Helper()
	blocks, more, err := Find(strings.NewReader(text), limit)
	if err != nil {
		t.Fatal(err)
	}
	out := found{blocks: blocks, more: more}
	at := int64(0)
	for _, b := range blocks {
		if b.Start < at || b.End <= b.Start || b.End > int64(len(text)) {
			t.Fatalf("block %d-%d behind %d in a text of %d", b.Start, b.End, at, len(text))
		}
		out.kept += text[at:b.Start]
		at = b.End
		file, err := io.ReadAll(b.Open(strings.NewReader(text[b.Start:b.End])))
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		if int64(len(file)) != b.Size {
			t.Fatalf("%d bytes, size says %d", len(file), b.Size)
		}
		out.files = append(out.files, string(file))
	}
	out.kept += text[at:]
	return out
}

// uu encodes as GNU sharutils does.
func uu(name, data string) string {
	return "begin 644 " + name + "\n" + uuBody(data) + "`\nend\n"
}

func uuBody(data string) string {
	var out strings.Builder
	char := func(v byte) {
		if v &= 63; v == 0 {
			v = 64
		}
		out.WriteByte(v + ' ')
	}
	for data != "" {
		part := data[:min(45, len(data))]
		data = data[len(part):]
		char(byte(len(part)))
		padded := part + "\x00\x00"
		for i := 0; i < len(part); i += 3 {
			a, b, c := padded[i], padded[i+1], padded[i+2]
			char(a >> 2)
			char(a<<4 | b>>4)
			char(b<<2 | c>>6)
			char(c)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func quoted(prefix, text string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = prefix + line
		}
	}
	return strings.Join(lines, "")
}

// bytesOf gives n bytes that look like a file.
func bytesOf(n int) string {
	out := make([]byte, n)
	x := uint32(n + 1)
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = byte(x >> 24)
	}
	return string(out)
}

const (
	above = "Dear all,\nplease begin with the file.\n\n"
	below = "\nKind regards,\nJane\nend\n"
)

type want struct {
	kind  Kind
	name  string
	file  string
	asItI bool
}

func checkText(t *testing.T, text, kept string, wants []want) {
	t.Helper()
	got := find(t, text, 10)
	if got.kept != kept {
		t.Errorf("kept %q\nwant %q", got.kept, kept)
	}
	if len(got.blocks) != len(wants) {
		t.Fatalf("%d blocks, want %d", len(got.blocks), len(wants))
	}
	for i, w := range wants {
		b := got.blocks[i]
		if b.Kind != w.kind || b.Name != w.name || b.AsItStands != w.asItI {
			t.Errorf("block %d: %s %q as it stands %v, want %s %q %v", i, b.Kind, b.Name, b.AsItStands, w.kind, w.name, w.asItI)
		}
		if got.files[i] != w.file {
			t.Errorf("file %d:\n%q\nwant\n%q", i, got.files[i], w.file)
		}
	}
}

func TestUUencodeIsDecodedAndTheTextAroundItStays(t *testing.T) {
	data := bytesOf(1000)
	whole := uu("a b.bin", data)
	begin, rest, _ := strings.Cut(whole, "\n")
	body := uuBody(data)
	lines := strings.SplitAfter(body, "\n")
	cut := strings.Join(lines[:10], "")
	one := []want{{UU, "a b.bin", data, false}}
	tests := []struct {
		name, block string
		want        []want
	}{
		{"plain", whole, one},
		{"CRLF", strings.ReplaceAll(whole, "\n", "\r\n"), one},
		{"spaces instead of backquotes", begin + "\n" + strings.ReplaceAll(rest, "`", " "), one},
		{"spaces stripped", begin + "\n" + stripped(strings.ReplaceAll(rest, "`", " ")), one},
		{"check characters", begin + "\n" + strings.ReplaceAll(body, "\n", "X\n") + "`\nend\n", one},
		{"padded last line", begin + "\n" + strings.TrimSuffix(body, "\n") + strings.Repeat("`", 30) + "\n`\nend\n", one},
		{"no zero line", begin + "\n" + body + "end\n", one},
		{"empty zero line", begin + "\n" + body + "\nend\n", one},
		{"end with spaces", begin + "\n" + body + "`\nend  \n", one},
		{"end missing", begin + "\n" + body + "`\n", one},
		{"both missing", begin + "\n" + body, one},
		{"doubled line ends", strings.TrimSuffix(strings.ReplaceAll(whole, "\n", "\n\n"), "\n"), one},
		{"cut", begin + "\n" + cut, []want{{UU, "a b.bin", data[:450], false}}},
		{"cut in a line", begin + "\n" + cut + lines[10][:41] + "\n", []want{{UU, "a b.bin", data[:480] + strings.Repeat("\x00", 15), false}}},
		{"quoted", quoted("> ", whole), one},
		{"quoted twice", quoted(">> ", whole), one},
		{"quoted without a space", quoted(">", whole), one},
		{"quoted with a bar", quoted("| ", whole), one},
		{"quoted, empty line bare", quoted("> ", begin+"\n"+body) + ">\n> end\n", one},
		{"indented", quoted("    ", whole), one},
		{"mode of four digits", strings.Replace(whole, "644", "0644", 1), one},
		{"two spaces", strings.Replace(whole, "644 ", " 644  ", 1), one},
		{"upper case", strings.Replace(whole, "begin", "BEGIN", 1), one},
		{"no mode", strings.Replace(whole, "644 ", " ", 1), one},
		{"short mode", strings.Replace(whole, "644", "6", 1), one},
		{"no name", strings.Replace(whole, " a b.bin", "", 1), []want{{UU, "", data, false}}},
		{"name that is no text", strings.Replace(whole, "a b.bin", "\xff../\x00\"x\"", 1), []want{{UU, "\xff../\x00\"x\"", data, false}}},
		{"two", whole + uu("two", "2"), append(one[:1:1], want{UU, "two", "2", false})},
		{"two, the first cut", begin + "\n" + cut + uu("two", "2"), []want{{UU, "a b.bin", data[:450], false}, {UU, "two", "2", false}}},
		{"space-stuffed", uuStuffed("s", bytesOf(75)), []want{{UU, "s", bytesOf(75), false}}},
		{"lines of one byte, not padded", "begin 644 1\n!80\n!80\n!80\n", []want{{UU, "1", "aaa", false}}},
		{"one byte", uu("1", "x"), []want{{UU, "1", "x", false}}},
		{"empty file", uu("0", ""), []want{{UU, "0", "", false}}},
		{"nothing but zeros, stripped", "begin 644 z\nM\nM\n!\n\nend\n", []want{{UU, "z", strings.Repeat("\x00", 91), false}}},
		{"part of a split file", strings.Join(lines[:12], ""), []want{{UU, "", data[:540], false}}},
		{"last part of a split file", strings.Join(lines[20:], "") + "`\nend\n", []want{{UU, "", data[900:], false}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { checkText(t, above+test.block+below, above+below, test.want) })
	}
}

func TestBlockInABlock(t *testing.T) {
	cut := strings.Join(strings.SplitAfter(uu("a", bytesOf(1000)), "\n")[:11], "")
	checkText(t, cut+"junk here\n"+uu("two", "2"), "junk here\n", []want{{UU, "a", bytesOf(1000)[:450], false}, {UU, "two", "2", false}})
	checkText(t, "begin 644 one\n"+uu("two", "2"), "begin 644 one\n", []want{{UU, "two", "2", false}})
	pgp := "-----BEGIN PGP MESSAGE-----\n" + armor
	checkText(t, pgp+cut+pgp, "", []want{{PGP, "", pgp, true}, {UU, "a", bytesOf(1000)[:450], false}, {PGP, "", pgp, true}})
}

func TestLinesMayEndWithCR(t *testing.T) {
	cr := func(text string) string { return strings.ReplaceAll(text, "\n", "\r") }
	pgp := "-----BEGIN PGP MESSAGE-----\n" + armor + "-----END PGP MESSAGE-----\n"
	checkText(t, cr(above+uu("a", bytesOf(1000))+quoted("> ", pgp)+below), cr(above+below),
		[]want{{UU, "a", bytesOf(1000), false}, {PGP, "", cr(pgp), true}})
}

func stripped(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func uuStuffed(name, data string) string {
	return strings.ReplaceAll(uu(name, data), "\n>", "\n >")
}

func TestDamagedUUencodeIsKeptAsItStands(t *testing.T) {
	lines := strings.SplitAfter(uu("a", bytesOf(1000)), "\n")
	damaged := strings.Join(lines[:5], "") + "a footer of a list\n" + strings.Join(lines[5:], "")
	prefixed := quoted("> ", damaged)
	checkText(t, above+damaged+below, above+below, []want{{UU, "a", damaged, true}})
	checkText(t, above+prefixed+below, above+below, []want{{UU, "a", damaged, true}})
}

func TestBase64VariantOfUUencode(t *testing.T) {
	const body = "aGVsbG8gd29ybGQsIHNvbWUgYnl0ZXMgbW9yZSB0aGFuIG9uZSBsaW5lIG9m\nIHRleHQ=\n"
	const data = "hello world, some bytes more than one line of text"
	const begin = "begin-base64 644 a.txt\n"
	for name, test := range map[string]struct {
		block string
		want  want
	}{
		"whole":          {begin + body + "====\n", want{UU, "a.txt", data, false}},
		"encoded name":   {"begin-base64-encoded 644 YSBiLnR4dA==\n" + body + "====\n", want{UU, "a b.txt", data, false}},
		"encoded, uu":    {strings.Replace(uu("YSBiLnR4dA==", data), "begin", "begin-encoded", 1), want{UU, "a b.txt", data, false}},
		"end missing":    {begin + body, want{UU, "a.txt", data, false}},
		"quoted":         {quoted("> ", begin+body+"====\n"), want{UU, "a.txt", data, false}},
		"empty":          {begin + "====\n", want{UU, "a.txt", "", false}},
		"no multiple":    {begin + "QUJ\n" + body + "====\n", want{UU, "a.txt", begin + "QUJ\n" + body + "====\n", true}},
		"one short line": {begin + "QQ==\n", want{UU, "a.txt", "A", false}},
	} {
		t.Run(name, func(t *testing.T) { checkText(t, above+test.block+below, above+below, []want{test.want}) })
	}
}

// yenc encodes with lines of width bytes.
func yenc(data string, width int) string {
	var out strings.Builder
	column := 0
	for i := range len(data) {
		b := data[i] + 42
		if b == 0 || b == '\n' || b == '\r' || b == '=' || b == '.' && column == 0 {
			out.WriteByte('=')
			b += 64
			column++
		}
		out.WriteByte(b)
		if column++; column >= width {
			out.WriteByte('\n')
			column = 0
		}
	}
	if column > 0 {
		out.WriteByte('\n')
	}
	return out.String()
}

const armor = "\nhQEMA1UJb6e6eNoDAQf/YzT6Pz9XQnb8O1c0dVLXvT1WbZn9m1oXhKq5zYbz4xQw\nq3pVZr0Y8jZ9s1mYb2R0cQ==\n=aBcD\n"

func TestOtherFormsAreGivenAsTheyStand(t *testing.T) {
	yBody := yenc(bytesOf(1000), 128)
	yHead := "=ybegin line=128 size=1000 name=a b.bin \n"
	const hqxHead = "(This file must be converted with BinHex 4.0)\n\n"
	const hqxBody = ":$f*TEQKPH#jdH@iZ,R0TG!\"[9A*dF3!!!!!\"!!!!!%GdCAKdB@9`FQ9`,R4iG!!\n!!!\"rN!4849K8G3\"6483\"!!!\"!!!\"%!!\"!!!!!(9I!!\"6483\":\n"
	pgp := "-----BEGIN PGP MESSAGE-----\nVersion: GnuPG v2\nComment: a\n" + armor + "-----END PGP MESSAGE-----\n"
	for name, test := range map[string]struct {
		block string
		kind  Kind
		file  string // the block if empty
	}{
		"yEnc":                     {yHead + yBody + "=yend size=1000 crc32=00000000\n", Yenc, ""},
		"yEnc part":                {yHead + "=ypart begin=1 end=1000\n" + yBody + "=yend size=1000\n", Yenc, ""},
		"yEnc with stripped lines": {yHead + strings.ReplaceAll(yBody, "a\n", "\n") + yBody[10:100] + "\n" + yBody + "=yend size=1\n", Yenc, ""},
		"yEnc without end":         {yHead + yBody, Yenc, ""},
		"yEnc of another width":    {yHead + yenc(bytesOf(1000), 100), Yenc, ""},
		"yEnc, quoted":             {quoted("> ", yHead+yBody+"=yend size=1000\n"), Yenc, yHead + yBody + "=yend size=1000\n"},
		"BinHex":                   {hqxHead + hqxBody, Binhex, ""},
		"BinHex on one line":       {hqxHead + strings.Replace(hqxBody, "\n", "", 1), Binhex, ""},
		"BinHex without end":       {hqxHead + strings.TrimSuffix(hqxBody, ":\n") + "\n", Binhex, ""},
		"BinHex, quoted":           {quoted("> ", hqxHead+hqxBody), Binhex, hqxHead + hqxBody},
		"PGP":                      {pgp, PGP, ""},
		"PGP part":                 {strings.ReplaceAll(pgp, "MESSAGE", "MESSAGE, PART 01/02"), PGP, ""},
		"PGP armored file":         {strings.ReplaceAll(pgp, "MESSAGE", "ARMORED FILE"), PGP, ""},
		"PGP without headers":      {"-----BEGIN PGP MESSAGE-----\n" + armor + "-----END PGP MESSAGE-----\n", PGP, ""},
		"PGP without end":          {"-----BEGIN PGP MESSAGE-----\n" + armor, PGP, ""},
		"PGP in short lines":       {"-----BEGIN PGP MESSAGE-----\n\nhQEM\nA1UJ\n-----END PGP MESSAGE-----\n", PGP, ""},
		"PGP, dash-escaped":        {"- -----BEGIN PGP MESSAGE-----\n" + armor + "- -----END PGP MESSAGE-----\n", PGP, ""},
		"PGP, wrapped header":      {strings.Replace(pgp, "Comment: a", "Comment: this was\nwrapped by a mailer", 1), PGP, ""},
		"PGP, many headers":        {strings.Replace(pgp, "Comment: a\n", strings.Repeat("Comment: a\n", 20), 1), PGP, ""},
		"PGP with a footer":        {strings.Replace(pgp, "-----END", "a footer of a list\n-----END", 1), PGP, ""},
		"PGP, quoted":              {quoted(">> ", pgp), PGP, pgp},
		"PGP, quoted, bare lines":  {strings.ReplaceAll(quoted("> ", pgp), "> \n", ">\n"), PGP, pgp},
	} {
		t.Run(name, func(t *testing.T) {
			w := want{test.kind, "", test.file, true}
			if w.file == "" {
				w.file = test.block
			}
			if test.kind == Yenc {
				w.name = "a b.bin"
			}
			checkText(t, above+test.block+below, above+below, []want{w})
			crlf := w
			crlf.file = strings.ReplaceAll(w.file, "\n", "\r\n")
			checkText(t, above+strings.ReplaceAll(test.block, "\n", "\r\n")+below, above+below, []want{crlf})
		})
	}
}

func TestLineOfAnySizeStaysInItsBlock(t *testing.T) {
	pgp := "-----BEGIN PGP MESSAGE-----\n\n" + strings.Repeat("QUJD", 100_000) + "\n-----END PGP MESSAGE-----\n"
	checkText(t, above+pgp+below, above+below, []want{{PGP, "", pgp, true}})
	hqx := "(This file must be converted with BinHex 4.0)\r\n:" + strings.Repeat("$f*T", 20_000) + ":\r\n"
	checkText(t, above+hqx+below, above+below, []want{{Binhex, "", hqx, true}})
	b64 := "begin-base64 644 a\n" + strings.Repeat("QUJD", 100_000) + "\n====\n"
	checkText(t, above+b64+below, above+below, []want{{UU, "a", b64, true}})
	prose := "-----BEGIN PGP MESSAGE-----\n\n" + strings.Repeat("QUJD", 100_000) + " or so\n"
	checkText(t, prose, prose, nil)
	name := strings.Repeat("n", 10_000)
	checkText(t, uu(name, "x"), "", []want{{UU, name, "x", false}})
}

func TestProseStays(t *testing.T) {
	for name, text := range map[string]string{
		"Outlook's begin":       "I shall\nbegin  tomorrow, or\nbegin the day after\nend\n",
		"begin with a line":     "begin the work\n---------------------\nThen stop.\nend\n",
		"begin with a number":   "begin 12 times\nand end\nend\n",
		"begin with a mode":     "begin 644 times\nwith this\nend\n",
		"a begin line":          "A block starts with\nbegin 644 name\nand goes on.\n\n`\nend\n",
		"Pascal":                "begin\n  writeln;\nend\n",
		"upper case":            "BEGIN TRANSACTION\nMUST BE CLOSED\nEND\n",
		"M lines":               strings.Repeat("Many words that are exactly as long as a full line would be.\n", 20),
		"seven M lines":         uuBody(bytesOf(7 * 45)),
		"talk of yEnc":          "=ybegin is what the line starts with\n=yend\n",
		"example of yEnc":       "=ybegin line=128 size=5 name=x\nis what the line looks like.\n" + strings.Repeat("a line ", 18) + "of\n",
		"talk of BinHex":        "(This file must be converted with BinHex 4.0)\nis what it says.\n: a\n",
		"BinHex and a short :":  "(This file must be converted with BinHex 4.0)\n:abc:\n",
		"talk of PGP":           "-----BEGIN PGP MESSAGE-----\nis what it says.\n-----END PGP MESSAGE-----\n",
		"PGP, redacted":         "-----BEGIN PGP MESSAGE-----\n\n[was here]\n-----END PGP MESSAGE-----\n",
		"PGP, a word":           "-----BEGIN PGP MESSAGE-----\nHello\nworld, we talk.\n",
		"PGP public key":        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + armor + "-----END PGP PUBLIC KEY BLOCK-----\n",
		"PGP signature":         "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nHi\n-----BEGIN PGP SIGNATURE-----\n" + armor + "-----END PGP SIGNATURE-----\n",
		"empty":                 "",
		"no line end":           "begin 644 x",
		"quotes":                "> begin the day\n> > M\n>\n",
		"empty begin":           "begin 644 x\nend\n",
		"base64 without a mode": "begin-base64 name\n" + strings.Repeat("QUJD", 15) + "\n====\n",
	} {
		t.Run(name, func(t *testing.T) {
			checkText(t, text, text, nil)
			crlf := strings.ReplaceAll(text, "\n", "\r\n")
			checkText(t, crlf, crlf, nil)
		})
	}
}

func TestProseBehindABlockStays(t *testing.T) {
	block := uu("a", bytesOf(100))
	unended := strings.TrimSuffix(block, "end\n")
	for _, prose := range []string{"```\ncode\n```\n", "REGARDS\nend\n", "\nBEST REGARDS\n", "-- \nJane\nend\n", "---------------------\n"} {
		checkText(t, unended+prose, prose, []want{{UU, "a", bytesOf(100), false}})
	}
	y := "=ybegin line=128 size=1000 name=y\n" + yenc(bytesOf(1000), 128)
	long := "I am done.\n" + strings.Repeat("a line ", 18) + "of\n"
	checkText(t, y+long, long, []want{{Yenc, "y", y, true}})
	short := strings.TrimSuffix(unended, "`\n")
	for _, prose := range []string{"\nHELLO\n\nI am done.\n", "\n\n\n", "see\n```\ncode\n", "see\n---------------------\n", "see\n#86)C\n", "see\nend\n"} {
		checkText(t, short+prose, prose, []want{{UU, "a", bytesOf(100), false}})
	}
	full := "begin 644 a\n" + uuBody(bytesOf(90))
	checkText(t, full+"HELLO\n", "HELLO\n", []want{{UU, "a", bytesOf(90), false}})
	checkText(t, unended+"The second:\n"+uuBody(bytesOf(900)), "The second:\n", []want{{UU, "a", bytesOf(100), false}, {UU, "", bytesOf(900), false}})
}

func TestManyBlocksAreCounted(t *testing.T) {
	text := strings.Repeat(uu("a", "x")+"and\n", 5)
	for _, test := range []struct {
		limit, blocks int
		more          bool
	}{{4, 4, true}, {5, 5, false}, {0, 0, true}} {
		got := find(t, text, test.limit)
		if len(got.blocks) != test.blocks || got.more != test.more {
			t.Errorf("limit %d: %d blocks, more %v", test.limit, len(got.blocks), got.more)
		}
	}
}

func TestReaderMayGiveLittle(t *testing.T) {
	text := strings.ReplaceAll(above+uu("a", bytesOf(100_000))+quoted("> ", "-----BEGIN PGP MESSAGE-----\n"+armor)+below, "\n", "\r\n")
	want, _, err := Find(strings.NewReader(text), 9)
	if err != nil || len(want) != 2 {
		t.Fatalf("%v, %v", want, err)
	}
	for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		got, _, err := Find(wrap(strings.NewReader(text)), 9)
		if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Fatalf("%v, %v, want %v", got, err, want)
		}
		for _, b := range got {
			block := text[b.Start:b.End]
			whole, err := io.ReadAll(b.Open(strings.NewReader(block)))
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(b.Open(wrap(strings.NewReader(block))), whole); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestErrorOfTheReaderIsReturned(t *testing.T) {
	text := above + uu("a", bytesOf(100_000))
	for _, broken := range []error{errors.New("disk"), io.ErrUnexpectedEOF} {
		_, _, err := Find(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), 9)
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	}
}

func TestBlockThatIsCutIsNoShortFile(t *testing.T) {
	for _, text := range []string{uu("a", bytesOf(100)), quoted("> ", yenc(bytesOf(10), 8)), "-----BEGIN PGP MESSAGE-----\n" + armor} {
		if strings.HasPrefix(text, "> ") {
			text = "> =ybegin line=8 size=10 name=a\n" + text
		}
		b := find(t, text, 1).blocks[0]
		_, err := io.Copy(io.Discard, b.Open(strings.NewReader(text[:b.End-20])))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", b.Kind, err)
		}
		broken := errors.New("disk")
		_, err = io.Copy(io.Discard, b.Open(io.MultiReader(strings.NewReader(text[:20]), iotest.ErrReader(broken))))
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", b.Kind, err)
		}
	}
}

func TestOtherTextThanWasFoundIsNoFile(t *testing.T) {
	for _, other := range []string{"begin 644 a\n$86)C\n`\nend\n", "begin 644 a\n\"86)C\n`\nend\n"} {
		b := find(t, "begin 644 a\n#86)C\n`\nend\n", 1).blocks[0]
		if _, err := io.Copy(io.Discard, b.Open(strings.NewReader(other))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// endless gives a text of n bytes without holding it.
type endless struct {
	line []byte
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n+len(e.line) <= len(p) {
		n += copy(p[n:], e.line)
	}
	if n == 0 {
		n = copy(p, e.line)
	}
	e.n -= n
	return n, nil
}

func TestMemoryDoesNotDependOnTheText(t *testing.T) {
	for name, line := range map[string]string{
		"prose": "some text that people write\r\n", "one line": "QUJDREVG", "CR": "text\r",
		"empty": "\n", "M lines": uuBody(bytesOf(45)),
	} {
		t.Run(name, func(t *testing.T) {
			r := io.MultiReader(strings.NewReader("-----BEGIN PGP MESSAGE-----\n\n"), &endless{line: []byte(line), n: 8 << 20})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := Find(r, 10)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
				t.Errorf("%d bytes for a text of 8 MiB", got)
			}
		})
	}
}
