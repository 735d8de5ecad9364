package rewrite

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"sealpost/gateway/rewrite/tnef"
)

const (
	// maxHead is how many decoded bytes tell the type of a file.
	maxHead  = 3072
	typeTNEF = "application/vnd.ms-tnef"
)

// contentOf returns the media type that the first bytes of q tell, "" if they are a text, or nobody knows what.
func contentOf(src io.ReaderAt, q *part) (string, error) {
	head, err := firstBytes(src, q)
	if err != nil {
		return "", err
	}
	found := typeBehindSpace(head)
	if found != "" || !strings.Contains(q.encoding, "64") {
		return found, nil
	}
	// Others begin anew behind padding.
	head, err = readHead(&junkReader{in: section(src, span{q.body, q.end})}, min(maxHead, q.end-q.body))
	if err != nil {
		return "", err
	}
	return typeBehindSpace(head), nil
}

// hidesFile reports whether q, which is to stay, begins with a file in a transfer encoding that it does not name: base64, if
// it begins with nothing else, or quoted-printable.
func hidesFile(src io.ReaderAt, q *part) (bool, error) {
	raw := section(src, span{q.body, q.end})
	text, err := readHead(raw, min(2*maxHead, q.end-q.body))
	if err != nil {
		return false, err
	}
	var readers []io.Reader
	if (q.encoding != "base64" || q.commented) && isAllBase64(text) {
		readers = append(readers, &junkReader{in: bytes.NewReader(text)})
	}
	if (q.encoding != "quoted-printable" || q.commented) && bytes.IndexByte(text, '=') >= 0 {
		readers = append(readers, newQPReader(bytes.NewReader(text)))
	}
	for _, r := range readers {
		head, err := readHead(r, maxHead)
		if err != nil {
			return false, err
		}
		if typeBehindSpace(head) != "" || isTestVirus(head) {
			return true, nil
		}
	}
	return false, nil
}

// carriesFile reports whether a part of a report, which is to stay, has an encoded file in it: below the header, if it is
// one that came back (RFC 3462 section 2).
func carriesFile(src io.ReaderAt, q *part) (bool, error) {
	lines := bufio.NewScanner(decoder(src, q))
	lines.Buffer(nil, bufferSize)
	below := q.typ != "text/rfc822-headers" && q.typ != "message/global-headers"
	for lines.Scan() {
		text := bytes.TrimRight(lines.Bytes(), "\r")
		if below && isEncodedLine(text) {
			return true, nil
		}
		below = below || len(text) == 0
	}
	switch err := lines.Err(); {
	case errors.Is(err, errDirty), errors.Is(err, bufio.ErrTooLong):
		return true, nil // not to be read alike by all, or no text of such a part
	case err != nil:
		return false, fmt.Errorf("look for a file in a report: %w", err)
	}
	return false, nil
}

// minDigits is how many digits of base64 are taken for a file rather than a word.
const minDigits = 20

// isAllBase64 reports whether nobody can read text as prose: there are only digits and padding, and no space in a line.
func isAllBase64(text []byte) bool {
	digits := 0
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		for _, c := range bytes.Trim(line, " \t\r") {
			switch {
			case noDigit[c] == 0:
				digits++
			case c != '=':
				return false
			}
		}
	}
	return digits >= minDigits
}

// isTestVirus reports whether a file is that of the European Institute for Computer Antivirus Research, which is a text.
func isTestVirus(head []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(head), []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}`+"$EICAR"))
}

func typeBehindSpace(head []byte) string {
	if found := typeOf(head); found != "" {
		return found
	}
	if text := bytes.TrimLeft(head, " \t\r\n\v\f\x00"); len(text) < len(head) {
		return typeOf(text)
	}
	return ""
}

// typeOf takes for a file what has a known signature. Many signatures are a few letters: there must be control characters
// besides, unless the format is one that has none. An SVG, a script or a page is a text here: nobody renders it.
func typeOf(head []byte) string {
	if tnef.Is(head) {
		return typeTNEF
	}
	found := mimetype.Detect(head)
	typ, _, _ := strings.Cut(found.String(), ";")
	switch typ {
	case "application/pdf", "application/vnd.fdf", "application/postscript", "text/rtf":
		return typ
	case "application/octet-stream":
		return ""
	case "audio/mpeg": // found by a search through all bytes, and so in UTF-16
		if bytes.HasPrefix(head, []byte{0xff, 0xfe}) || bytes.HasPrefix(head, []byte{0xfe, 0xff}) {
			return ""
		}
	}
	for m := found; m != nil; m = m.Parent() {
		if m.Is("text/plain") {
			return ""
		}
	}
	if bytes.IndexFunc(head, isControl) < 0 {
		return ""
	}
	return typ
}

// isControl leaves out what stands in texts: white space, and ESC, SO and SI of ISO 2022 charsets.
func isControl(r rune) bool {
	return r < ' ' && (r < '\t' || r > '\r') && r != 0x1b && r != 0x0e && r != 0x0f
}

// firstBytes returns the first decoded bytes of q, as the most forgiving reader decodes them.
func firstBytes(src io.ReaderAt, q *part) ([]byte, error) {
	var r io.Reader = section(src, span{q.body, q.end})
	switch {
	case strings.Contains(q.encoding, "64"):
		return firstOfBase64(r)
	case strings.Contains(q.encoding, "quoted"):
		r = &qpReader{in: bufio.NewReaderSize(r, 4096)}
	}
	return readHead(r, min(maxHead, q.end-q.body))
}

func readHead(r io.Reader, size int64) ([]byte, error) {
	head := make([]byte, size)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("look at a file's first bytes: %w", err)
	}
	return head[:n], nil
}

// firstOfBase64 passes over everything that is no digit (RFC 2045 section 6.8 asks for that), padding included.
func firstOfBase64(r io.Reader) ([]byte, error) {
	digits := make([]byte, 0, base64.RawStdEncoding.EncodedLen(maxHead))
	chunk := make([]byte, 4096)
	for len(digits) < cap(digits) {
		n, err := r.Read(chunk)
		for _, c := range chunk[:n] {
			if noDigit[c] == 0 && len(digits) < cap(digits) {
				digits = append(digits, c)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("look at a file's first bytes: %w", err)
		}
	}
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	head := make([]byte, base64.RawStdEncoding.DecodedLen(len(digits)))
	n, _ := base64.RawStdEncoding.Decode(head, digits) // at odd bits in the last digit it returns what it has
	return head[:n], nil
}
