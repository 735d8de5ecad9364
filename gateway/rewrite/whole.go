package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxField is the most bytes of one field that a mail which was sealed whole takes along.
	maxField = 12 << 10
	// maxThreading bounds the fields on which threading hangs, maxIdentity the Message-ID, without which no Case is
	// found, and maxOthers all others. Together with 2,700 bytes of our own they stay below the 32,000 characters of
	// a header that Email-to-Case bounces.
	maxThreading = 20 << 10
	maxIdentity  = 4 << 10
	maxOthers    = 4608
)

// fieldLimit returns how large a field may be in a mail that takes the place of one sealed whole; 0 means
// that it is left out. threading tells that Email-to-Case routes or threads on it.
func fieldLimit(name string) (limit int, threading bool) {
	switch name {
	case "from":
		return 3000, true
	case "subject", "to", "cc":
		return 4000, true
	case "message-id", "in-reply-to", "references", "thread-index", "thread-topic":
		return maxField, true
	case "date", "sender", "reply-to", "return-path", "received", "auto-submitted", "precedence", "list-id",
		"x-auto-response-suppress", "x-sfdc-autoresponse", "importance", "resent-from", "resent-to", "resent-date", "resent-message-id":
		return 4000, false
	}
	return 0, false
}

// eachShortField calls each for every field that a mail which was sealed whole takes along.
func (m *Message) eachShortField(each func(field) error) error {
	threading, others, identity := maxThreading, maxOthers, maxIdentity
	return m.eachField(func(f field) error {
		limit, important := fieldLimit(f.name)
		left := &others
		switch {
		case f.name == "message-id":
			left = &identity
		case important:
			left = &threading
		}
		if f.raw == nil || len(f.raw) > min(limit, *left) || bytes.IndexByte(f.raw, 0) >= 0 || hasBareNewline(f.raw) {
			return nil
		}
		*left -= len(f.raw)
		return each(f)
	})
}

// hasBareNewline reports whether some readers see a line end where others see none: the field might hold a whole mail.
func hasBareNewline(raw []byte) bool {
	pairs := bytes.Count(raw, []byte("\r\n"))
	return bytes.Count(raw, []byte{'\r'}) != pairs || bytes.Count(raw, []byte{'\n'}) != pairs
}

// writeWhole writes the short mail that takes the place of one sealed whole.
func (p *Plan) writeWhole(m *meter, n *notice) error {
	err := p.msg.eachShortField(func(f field) error {
		if _, err := m.Write(p.shownField(f)); err != nil {
			return fmt.Errorf("write the header: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.writeNoticeMail(m, n)
}

// writeNoticeMail ends a header with the fields of a text/plain mail, and writes the notice as its body.
func (p *Plan) writeNoticeMail(m *meter, n *notice) error {
	body, err := n.part()
	if err != nil {
		return err
	}
	if err := writeString(m, "MIME-Version: 1.0\r\n"); err != nil {
		return err
	}
	m.inHeader = false // what comes is ASCII
	if _, err := m.Write(body); err != nil {
		return fmt.Errorf("write the notice: %w", err)
	}
	return nil
}

// topFields reads the top header of a mail that is taken apart, which is within the limits.
func (p *Plan) topFields() ([]field, error) {
	root := p.msg.root
	block := make([]byte, root.body)
	if _, err := p.msg.src.ReadAt(block, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	if !bytes.HasSuffix(block, []byte("\r\n")) { // the mail ends here
		block = append(block, "\r\n"...)
	}
	return fields(block, 0), nil
}

// writeSingle writes a mail whose only part was sealed: its header stays but for what described the body.
func (p *Plan) writeSingle(m *meter, n *notice) error {
	all, err := p.topFields()
	if err != nil {
		return err
	}
	for _, f := range all {
		if _, dropped := p.dropped[f.start]; dropped || f.isMIME() {
			continue
		}
		if _, err := m.Write(p.shownField(f)); err != nil {
			return fmt.Errorf("write the header: %w", err)
		}
	}
	return p.writeNoticeMail(m, n)
}

// writeWrapped writes the mail as the first part of a multipart/mixed, and the notice as the second. The
// fields that describe the body go with the body.
func (p *Plan) writeWrapped(m *meter, n *notice, edits []edit, link string) error {
	all, err := p.topFields()
	if err != nil {
		return err
	}
	var inner strings.Builder
	version := "MIME-Version: 1.0\r\n"
	for _, f := range all {
		if _, dropped := p.dropped[f.start]; dropped {
			continue
		}
		if strings.HasPrefix(f.name, "content-") {
			inner.Write(f.raw)
			continue
		}
		if f.name == "mime-version" {
			version = ""
		}
		if _, err := m.Write(p.shownField(f)); err != nil {
			return fmt.Errorf("write the header: %w", err)
		}
	}
	boundary := newBoundary(link)
	head := version + "Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\r\n\r\n"
	if err := writeString(m, head); err != nil {
		return err
	}
	m.inHeader = false
	if err := writeString(m, "--"+boundary+"\r\n"+inner.String()+"\r\n"); err != nil {
		return err
	}
	root := p.msg.root
	if err := apply(m, p.msg.src, span{root.body, p.msg.src.Size()}, append(p.dropEdits(root.body), edits...)); err != nil {
		return err
	}
	text, err := n.part()
	if err != nil {
		return err
	}
	return writeString(m, "\r\n--"+boundary+"\r\n"+string(text)+"\r\n--"+boundary+"--\r\n")
}
