package rewrite

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime/quotedprintable"
	"slices"
	"strings"
	"testing"
)

// maker writes random MIME trees and notes what is in them.
type maker struct {
	rand  *rand.Rand
	out   bytes.Buffer
	count int
	kept  []string // header and body of each part that must stay, as they stand
	files []string // decoded
}

// TestWhatCameInIsWhatStaysPlusWhatWasSealed is promise 3 and 4 over random trees.
func TestWhatCameInIsWhatStaysPlusWhatWasSealed(t *testing.T) {
	for seed := range uint64(400) {
		m := &maker{rand: rand.New(rand.NewPCG(seed, 1))}
		m.out.WriteString("From: a@customer.example\r\nSubject: thread::abc::\r\nX-Long: " + strings.Repeat("x", 200) + "\r\nMIME-Version: 1.0\r\n")
		m.multipart(0)
		r := rewriteMail(t, m.out.Bytes())
		if why, whole := r.plan.Whole(); whole {
			t.Fatalf("seed %d: sealed whole: %s", seed, why)
		}
		var got []string
		for _, file := range r.files {
			got = append(got, string(file))
		}
		if !slices.Equal(got, m.files) {
			t.Fatalf("seed %d: %d files came in, %d were sealed, or other bytes", seed, len(m.files), len(got))
		}
		kept := string(r.mail)
		for i, part := range m.kept {
			at := strings.Index(kept, part)
			if at < 0 {
				t.Fatalf("seed %d: kept part %d is changed or out of order:\n%s", seed, i, part)
			}
			kept = kept[at+len(part):]
		}
		for i, file := range m.files {
			if len(file) > 30 && bytes.Contains(r.mail, []byte(file[:30])) {
				t.Fatalf("seed %d: file %d is still in the mail", seed, i)
			}
		}
		if len(m.files) > 0 && !strings.Contains(strings.ReplaceAll(string(r.mail), "=\r\n", ""), testLink) {
			t.Fatalf("seed %d: files are gone and there is no link", seed)
		}
	}
}

// multipart reports whether it wrote the closing boundary line.
func (m *maker) multipart(depth int) bool {
	m.count++
	boundary := fmt.Sprintf("=_b%d", m.count)
	fmt.Fprintf(&m.out, "Content-Type: multipart/%s;\r\n\tboundary=\"%s\"\r\n\r\n", []string{"mixed", "related", "alternative", "x-new"}[m.rand.IntN(4)], boundary)
	if m.rand.IntN(2) == 0 {
		m.out.WriteString("preamble\r\n")
	}
	for range 1 + m.rand.IntN(4) {
		m.out.WriteString("--" + boundary + "\r\n")
		switch {
		case depth < 3 && m.rand.IntN(4) == 0:
			if closed := m.multipart(depth + 1); !closed {
				continue // the last part has its line end already
			}
		case depth < 3 && m.rand.IntN(5) == 0:
			if closed := m.message(depth + 1); !closed {
				continue
			}
		case m.rand.IntN(2) == 0:
			m.text()
		default:
			m.file()
		}
		m.out.WriteString("\r\n")
	}
	if m.rand.IntN(8) > 0 || depth == 0 {
		m.out.WriteString("--" + boundary + "--\r\nepilogue\r\n")
		return true
	}
	return false
}

// message is a forwarded one, which stays, or is called an attachment and so is a file. It reports whether its last line end
// is still to be written.
func (m *maker) message(depth int) bool {
	kind := m.rand.IntN(3)
	m.out.WriteString("Content-Type: " + []string{"message/rfc822", "message/global; name=a.eml\r\nContent-Disposition: attachment", "message/news\r\nContent-Transfer-Encoding: 8bit"}[kind] + "\r\n\r\n")
	if kind != 1 {
		return m.mail(depth)
	}
	attached := &maker{rand: m.rand, count: m.count}
	closed := attached.mail(depth)
	m.out.Write(attached.out.Bytes())
	m.count = attached.count
	file := attached.out.String()
	if !closed {
		file = strings.TrimSuffix(file, "\r\n")
	}
	m.files = append(m.files, file)
	return closed
}

// mail has a text in it and whatever else. It reports what message does.
func (m *maker) mail(depth int) bool {
	head := fmt.Sprintf("Subject: forwarded %d\r\n", m.count)
	m.out.WriteString(head)
	if m.rand.IntN(3) == 0 {
		m.text()
		return true
	}
	m.count++
	boundary := fmt.Sprintf("=_m%d", m.count)
	fmt.Fprintf(&m.out, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\n", boundary, boundary)
	m.text()
	m.out.WriteString("\r\n--" + boundary + "\r\n")
	closed := true
	switch {
	case m.rand.IntN(2) == 0:
		m.file()
	case depth < 3:
		closed = m.multipart(depth + 1)
	default:
		m.text()
	}
	if closed {
		m.out.WriteString("\r\n")
	}
	if m.rand.IntN(4) == 0 {
		return false
	}
	m.out.WriteString("--" + boundary + "--\r\n")
	return true
}

// text is Latin-1, so that it cannot carry the notice and must stay byte for byte.
func (m *maker) text() {
	m.count++
	part := fmt.Sprintf("Content-Type: text/plain; charset=iso-8859-1\r\nX-N: %d\r\n\r\ntext %d%s--\r\n", m.count, m.count, strings.Repeat("\r\n", m.rand.IntN(3)))
	m.kept = append(m.kept, part)
	m.out.WriteString(part)
}

func (m *maker) file() {
	file := make([]byte, m.rand.IntN(300))
	for i := range file {
		file[i] = byte(m.rand.Uint32())
	}
	m.files = append(m.files, string(file))
	if m.rand.IntN(2) == 0 {
		m.out.WriteString("Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
		lines := &base64Lines{w: &m.out}
		_, _ = lines.Write([]byte(base64.StdEncoding.EncodeToString(file)))
		_ = lines.flush()
		return
	}
	m.out.WriteString("Content-Type: text/plain\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(&m.out)
	w.Binary = true
	_, _ = w.Write(file)
	_ = w.Close()
}

// TestNoticeKeepsTheTextInOnePiece is the other half of promise 3: in the part with the notice, the decoded
// text stays contiguous.
func TestNoticeKeepsTheTextInOnePiece(t *testing.T) {
	texts := []string{"", "Hello", "Hello\r\n", "a = b \r\n.\r\n-- \r\nAda\r\n", strings.Repeat("long line ", 200), strings.Repeat("text\r\n", 8000), "Grüße\r\n"}
	for _, text := range texts {
		for _, encoding := range []string{"", "7bit", "8bit", "base64", "quoted-printable"} {
			for _, charset := range []string{"", "us-ascii", "utf-8"} {
				for _, name := range []string{"a.pdf", "東京.pdf"} {
					body := encodeAs(t, text, encoding)
					mail := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: text/plain"
					if charset != "" {
						mail += "; charset=" + charset
					}
					if encoding != "" {
						mail += "\r\nContent-Transfer-Encoding: " + encoding
					}
					mail += "\r\n\r\n" + body + "\r\n--B\r\nContent-Type: application/pdf; name=" + name + "\r\n\r\nfile\r\n--B--\r\n"
					r := rewriteMail(t, []byte(mail))
					again, err := Scan(bytes.NewReader(r.mail), DefaultLimits())
					if err != nil || len(again.root.children) != 1 {
						t.Fatalf("%q %q: the mail has %d parts, %v:\n%s", encoding, charset, len(again.root.children), err, r.mail)
					}
					got := decodeAll(t, again.src, again.root.children[0])
					if !strings.Contains(got, text) || !strings.Contains(got, testLink) || !strings.Contains(got, name) {
						t.Errorf("%q %q %q: %.40q is not in one piece in %.300q", encoding, charset, name, text, got)
					}
				}
			}
		}
	}
}
