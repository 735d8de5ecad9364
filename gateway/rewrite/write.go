package rewrite

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Output is what is added to the mail.
type Output struct {
	// Trace is complete header fields with CRLF line ends, put before everything.
	Trace []byte
	// Notice is used only if the plan has items.
	Notice Notice
}

// Written says what a next hop must know of the rewritten mail.
type Written struct {
	Size       int64
	EightBit   bool // an octet above 127 is in the body: 8BITMIME (RFC 6152)
	HeaderUTF8 bool // an octet above 127 is in the header: SMTPUTF8 (RFC 6531)
}

// Write streams the rewritten mail to w. It may be called again. An error that is not w's is ErrPlan.
func (p *Plan) Write(w io.Writer, out Output) (Written, error) {
	m := &meter{w: w, inHeader: true}
	err := p.write(m, out)
	if err != nil && m.failed == nil {
		err = fmt.Errorf("%w: %w", ErrPlan, err)
	}
	if err != nil {
		return Written{}, fmt.Errorf("rewrite the mail: %w", err)
	}
	return m.written, nil
}

func (p *Plan) write(m *meter, out Output) error {
	if err := writeString(m, string(out.Trace)); err != nil {
		return err
	}
	root := p.msg.root
	out.Notice.imitated, out.Notice.unsigned, out.Notice.originals = p.imitated, p.evidences, p.originals
	files, err := p.shownFiles(out.Notice.Files)
	if err != nil {
		return fmt.Errorf("name the files: %w", err)
	}
	out.Notice.Files = files
	if out.Notice.Place != "" && out.Notice.Place != PlaceAuto && p.whole == "" {
		if err := p.chooseHosts(out.Notice.Place); err != nil {
			return fmt.Errorf("place the notice: %w", err)
		}
	}
	switch {
	case p.whole != "":
		return p.writeWhole(m, p.notice(out.Notice, aboutWhole(p.cause), 0))
	case len(p.items) == 0:
		return p.copyMail(m, nil)
	case p.fates[root] == leaves && !root.isMultipart(), p.fates[root] == replaced:
		about := aboutFiles
		if p.fates[root] == replaced {
			about = p.about()
		}
		return p.writeSingle(m, p.notice(out.Notice, about, 0))
	}
	return p.writeParts(m, p.notice(out.Notice, p.about(), p.copies), out.Notice.Link)
}

// notice makes the notice, and remembers whether the admin's template failed with it.
func (p *Plan) notice(n Notice, about kind, copies int) *notice {
	made := newNotice(n, about, copies)
	p.templateFailed = made.failed
	return made
}

// TemplateFailed tells that the last Write wrote our own notice, since the admin's template failed with this mail.
func (p *Plan) TemplateFailed() bool { return p.templateFailed }

// shownFiles returns files with personal data masked in their names, as in a subject.
func (p *Plan) shownFiles(files []File) ([]File, error) {
	if p.rules.Text == nil {
		return files, nil
	}
	shown := make([]File, len(files))
	for i, file := range files {
		name, err := p.maskShort(file.Name)
		if err != nil {
			return nil, err
		}
		shown[i] = File{Name: name, Size: file.Size}
	}
	return shown, nil
}

// about says what the notice of a multipart is about.
func (p *Plan) about() kind {
	if len(p.inside) > 0 {
		return aboutFiles
	}
	for _, fate := range p.fates {
		if fate == leaves || fate == pictured {
			return aboutFiles
		}
	}
	if p.tooPersonal {
		return aboutPersonal
	}
	return aboutText
}

func (p *Plan) copyMail(m *meter, edits []edit) error {
	root := p.msg.root
	var head, body []edit
	for _, e := range append(p.dropEdits(0), edits...) {
		if e.start < root.body {
			head = append(head, e)
		} else {
			body = append(body, e)
		}
	}
	if err := apply(m, p.msg.src, span{0, root.body}, head); err != nil {
		return err
	}
	m.inHeader = false
	return apply(m, p.msg.src, span{root.body, p.msg.src.Size()}, body)
}

// dropEdits remove the fields that do not go on, and mask the subject, of what begins at from.
func (p *Plan) dropEdits(from int64) []edit {
	var edits []edit
	for start, masked := range p.subject.instead {
		if start >= from {
			edits = append(edits, replace(masked.span, masked.text))
		}
	}
	for start, s := range p.dropped {
		if start >= from {
			edits = append(edits, remove(s))
		}
	}
	return edits
}

// writeParts writes a mail without its sealed parts.
func (p *Plan) writeParts(m *meter, n *notice, link string) error {
	edits, told, err := p.noticeEdits(n)
	if err != nil {
		return err
	}
	var home *place
	if !told {
		found := p.settle(p.findPlace())
		home = &found
	}
	unsigned, err := p.unsignEdits()
	if err != nil {
		return err
	}
	pictures, err := p.pictureEdits()
	if err != nil {
		return err
	}
	edits = append(append(edits, unsigned...), pictures...)
	removed, err := p.removals(p.msg.root, n, home)
	if err != nil {
		return err
	}
	edits = append(edits, removed...) // at the same place the notice comes first: what is removed lies behind it
	if home != nil && home.wrap {
		return p.writeWrapped(m, n, edits, link)
	}
	return p.copyMail(m, edits)
}

// noticeEdits puts the notice into the bodies. told is false if it needs a part of its own: when a body
// cannot carry it, none does, so that the mail says it once. A page that will be cut carries it if it can.
func (p *Plan) noticeEdits(n *notice) (edits []edit, told bool, err error) {
	for q, fate := range p.fates {
		if fate != replaced {
			continue
		}
		body, encoding, err := n.encoded()
		if err != nil {
			return nil, false, err
		}
		described := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + encoding + "\r\n"
		more, err := replaceBody(p.msg.src, q, described, string(body))
		if err != nil {
			return nil, false, err
		}
		edits = append(edits, more...)
		told = true
	}
	hosts := p.carriers(n, told)
	for _, h := range hosts {
		more, err := h.insertion(p.msg.src, n, p.inside[h.part].splices)
		if err != nil {
			return nil, false, err
		}
		edits = append(edits, more...)
		told = true
	}
	for q, found := range p.inside {
		if slices.ContainsFunc(hosts, func(h *host) bool { return h.part == q }) {
			continue
		}
		more, err := textEdits(p.msg.src, q, found.splices)
		if err != nil {
			return nil, false, err
		}
		edits = append(edits, more...)
	}
	return edits, told, nil
}

// carriers returns the bodies that carry the notice.
func (p *Plan) carriers(n *notice, told bool) []*host {
	var carriers []*host
	cut := false
	for _, h := range p.hosts {
		if h.carries(n) {
			carriers = append(carriers, h)
			cut = cut || p.fates[h.part] == copied
		}
	}
	if len(carriers) < len(p.hosts) && !told && !cut {
		return nil
	}
	return carriers
}

// replaceBody puts something else in the place of a body; only the fields that describe the body change, to described,
// which is whole lines.
func replaceBody(src io.ReaderAt, q *part, described, body string) ([]edit, error) {
	block := make([]byte, q.body-q.start)
	if _, err := src.ReadAt(block, q.start); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read a header: %w", err)
	}
	edits := make([]edit, 0, 4)
	last := q.start
	for _, f := range fields(block, q.start) {
		last = f.end
		switch f.name {
		case "content-type", "content-transfer-encoding", "content-md5":
			edits = append(edits, remove(f.span))
		case "content-disposition", "content-description": // which tell the name of what was replaced
			if strings.Contains(described, "Content-Disposition:") {
				edits = append(edits, remove(f.span))
			}
		}
	}
	if !q.blank {
		described += "\r\n"
	}
	return append(edits, replace(span{last, last}, described), replace(span{q.body, q.end}, body)), nil
}

// newBoundary cannot be foretold by a sender, who could else write parts of his own: it comes from the link.
func newBoundary(link string) string {
	sum := sha256.Sum256([]byte("boundary " + link))
	return "=_sealpost_" + hex.EncodeToString(sum[:16])
}

// meter counts what is written, and looks for octets above 127.
type meter struct {
	w        io.Writer
	inHeader bool
	written  Written
	failed   error // of w
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.written.Size += int64(n)
	if err != nil {
		m.failed = err
	}
	switch {
	case m.inHeader:
		m.written.HeaderUTF8 = m.written.HeaderUTF8 || isWide(p)
	case !m.written.EightBit:
		m.written.EightBit = isWide(p)
	}
	return n, err
}

func isWide(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p)&0x8080808080808080 != 0 {
			return true
		}
		p = p[8:]
	}
	for _, b := range p {
		if b >= 0x80 {
			return true
		}
	}
	return false
}
