package rewrite

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxField is the most bytes of one field that a mail which was sealed whole takes along, and maxOthers
	// of all those together on which nothing hangs. Email-to-Case bounces a header over 32,000 characters.
	maxField  = 12 << 10
	maxOthers = 8 << 10
	// maxThreading bounds the threading fields together.
	maxThreading = 20 << 10
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

// writeWhole writes the short mail that takes the place of one sealed whole.
func (p *Plan) writeWhole(m *meter, n *notice) error {
	r := newFieldReader(p.msg.src)
	threading, others, identity := maxThreading, maxOthers, maxField // without its Message-ID no Case is found
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the header: %w", err)
		}
		limit, important := fieldLimit(f.name)
		left := &others
		switch {
		case f.name == "message-id":
			left = &identity
		case important:
			left = &threading
		}
		if f.raw == nil || len(f.raw) > min(limit, *left) || strings.ContainsRune(string(f.raw), 0) {
			continue
		}
		*left -= len(f.raw)
		if _, err := m.Write(f.raw); err != nil {
			return fmt.Errorf("write the header: %w", err)
		}
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
		if _, err := m.Write(f.raw); err != nil {
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
		if _, err := m.Write(f.raw); err != nil {
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
