package tnef

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
)

// text is a name as it stands in the stream: in UTF-16 or in the code page of its message.
type text struct {
	octets []byte
	isWide bool
	isSet  bool
}

// text reads the octets up to end as a name. UTF-16 wins over a code page, which may lack some characters. Two
// different ones of the same kind are damage.
func (r *reader) text(into *text, isWide bool, end int64) error {
	size := end - r.at.pos
	if size > maxText {
		return damaged("a name of %d octets", size)
	}
	if r.texts += int(size); r.texts > maxTexts {
		return damaged("names of more than %d octets", maxTexts)
	}
	octets := make([]byte, size)
	if err := r.at.fill(octets, end); err != nil {
		return err
	}
	got := text{octets, isWide, true}
	if into.isSet && into.isWide == isWide && !bytes.Equal(into.trimmed(), got.trimmed()) {
		return damaged("an attachment with two different values of one name")
	}
	if !into.isSet || isWide {
		*into = got
	}
	return nil
}

// decode returns the text in UTF-8, without the NUL that ends it. Where octets are no characters of the code page,
// U+FFFD stands.
func (t text) decode(page uint32) string {
	if t.isWide {
		out, _ := utf16LE().NewDecoder().Bytes(t.octets)
		return strings.TrimRight(string(out), "\x00")
	}
	octets := t.trimmed()
	from := codePage(page)
	if from == nil {
		if utf8.Valid(octets) {
			return string(octets)
		}
		from = charmap.Windows1252
	}
	out, _ := from.NewDecoder().Bytes(octets)
	return strings.ToValidUTF8(string(out), "\ufffd")
}

func (t text) trimmed() []byte { return bytes.TrimRight(t.octets, "\x00") }

func withoutBrackets(id string) string {
	return strings.TrimSuffix(strings.TrimPrefix(id, "<"), ">")
}

func utf16LE() encoding.Encoding {
	return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
}

// codePage returns the encoding of a Windows code page, nil for one that is not known.
func codePage(number uint32) encoding.Encoding {
	switch number {
	case 932:
		return japanese.ShiftJIS
	case 936, 20936:
		return simplifiedchinese.GBK
	case 949, 51949:
		return korean.EUCKR
	case 950:
		return traditionalchinese.Big5
	case 50220, 50221, 50222:
		return japanese.ISO2022JP
	case 51932:
		return japanese.EUCJP
	case 52936:
		return simplifiedchinese.HZGB2312
	case 54936:
		return simplifiedchinese.GB18030
	case 65001:
		return unicode.UTF8
	}
	if single := singleByte(number); single != nil {
		return single
	}
	return nil
}

func singleByte(number uint32) *charmap.Charmap {
	known := map[uint32]*charmap.Charmap{
		437: charmap.CodePage437, 850: charmap.CodePage850, 852: charmap.CodePage852, 855: charmap.CodePage855,
		858: charmap.CodePage858, 860: charmap.CodePage860, 862: charmap.CodePage862, 863: charmap.CodePage863,
		865: charmap.CodePage865, 866: charmap.CodePage866, 874: charmap.Windows874,
		1250: charmap.Windows1250, 1251: charmap.Windows1251, 1252: charmap.Windows1252, 1253: charmap.Windows1253,
		1254: charmap.Windows1254, 1255: charmap.Windows1255, 1256: charmap.Windows1256, 1257: charmap.Windows1257,
		1258: charmap.Windows1258, 10000: charmap.Macintosh, 10007: charmap.MacintoshCyrillic,
		20866: charmap.KOI8R, 21866: charmap.KOI8U,
		28591: charmap.ISO8859_1, 28592: charmap.ISO8859_2, 28593: charmap.ISO8859_3, 28594: charmap.ISO8859_4,
		28595: charmap.ISO8859_5, 28596: charmap.ISO8859_6, 28597: charmap.ISO8859_7, 28598: charmap.ISO8859_8,
		28599: charmap.ISO8859_9, 28603: charmap.ISO8859_13, 28605: charmap.ISO8859_15, 38598: charmap.ISO8859_8,
	}
	return known[number]
}
