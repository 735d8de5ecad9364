package tnef

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Attributes ([MS-OXTNEF] section 2.1.3.1), without the type in their upper 16 bits.
const (
	attBody          = 0x800c
	attAttachData    = 0x800f
	attAttachTitle   = 0x8010
	attTransportName = 0x9001
	attAttachRend    = 0x9002
	attMsgProps      = 0x9003
	attAttachment    = 0x9005
	attOemCodepage   = 0x9007
)

// filler is what may stand behind the last attribute.
const filler = "\x00\r\n"

// message is what must be known of a message until its end.
type message struct {
	depth       int
	outer       uint32 // code page of the message that this one is embedded in
	oem         uint32 // attOemCodepage
	internet    uint32 // PR_INTERNET_CPID
	attachments []*attachment
}

// attachment gathers the names of an attachment, which may stand before and after its data.
type attachment struct {
	long, short, title, display, transport text
	mime, contentID                        text
	files                                  []int // in reader.files
}

// message reads a TNEF stream that ends at end ([MS-OXTNEF] section 2.1.1).
func (r *reader) message(end int64, depth int, outer uint32) error {
	if depth > maxDepth {
		return damaged("messages within messages deeper than %d", maxDepth)
	}
	var head [6]byte // the signature and a key
	if err := r.at.fill(head[:], end); err != nil {
		return err
	}
	if !Is(head[:]) {
		return damaged("no signature")
	}
	m := &message{depth: depth, outer: outer}
	for {
		more, err := r.at.more(end)
		if err != nil {
			return cut(err)
		}
		if !more {
			break
		}
		if err := r.attribute(m, end); err != nil {
			return err
		}
	}
	r.describe(m)
	return nil
}

// page is the code page of the message's names, 0 where nothing tells it.
func (m *message) page() uint32 {
	for _, page := range []uint32{m.oem, m.internet} {
		if page != 0 {
			return page
		}
	}
	return m.outer
}

// attribute reads one attribute ([MS-OXTNEF] section 2.1.3): its level, its id, the length of its data, the data and
// their checksum. The id alone tells what it is, since readers differ in what they make of a wrong level.
func (r *reader) attribute(m *message, end int64) error {
	var head [9]byte
	if err := r.at.fill(head[:1], end); err != nil {
		return err
	}
	if strings.IndexByte(filler, head[0]) >= 0 {
		return r.filling(end)
	}
	if head[0] > 2 {
		return damaged("an attribute of level %d", head[0])
	}
	if r.attributes++; r.attributes > maxAttributes {
		return damaged("more than %d attributes", maxAttributes)
	}
	if err := r.at.fill(head[1:], end); err != nil {
		return err
	}
	stop, err := r.at.within(int64(binary.LittleEndian.Uint32(head[5:])), end)
	if err != nil {
		return err
	}
	before := r.at.sum
	if err := r.content(m, binary.LittleEndian.Uint16(head[1:]), stop); err != nil {
		return err
	}
	if err := r.at.skip(stop); err != nil {
		return err
	}
	want := r.at.sum - before
	got, err := r.at.uint16(end)
	if err != nil {
		return err
	}
	if got != want {
		return damaged("an attribute's checksum is %#04x, not %#04x", got, want)
	}
	return nil
}

// filling passes over what some senders put behind the last attribute.
func (r *reader) filling(end int64) error {
	for {
		more, err := r.at.more(end)
		if err != nil {
			return cut(err)
		}
		if !more {
			return nil
		}
		b, err := r.at.next(end - r.at.pos)
		if err != nil {
			return cut(err)
		}
		if len(bytes.Trim(b, filler)) > 0 {
			return damaged("octets behind the last attribute")
		}
	}
}

// content reads the data of an attribute, as far as they matter.
func (r *reader) content(m *message, id uint16, end int64) error {
	switch id {
	case attOemCodepage:
		page, err := r.at.uint32(end)
		m.oem = page
		return err
	case attBody:
		return r.body(end, narrow, "message.txt", "text/plain")
	case attMsgProps:
		return r.eachProperty(end, func(tag uint32, end int64) error { return r.messageProperty(m, tag, end) })
	case attAttachRend:
		return r.attach(m)
	case attAttachTitle, attTransportName, attAttachData, attAttachment:
		if len(m.attachments) == 0 {
			if err := r.attach(m); err != nil {
				return err
			}
		}
		return r.attachmentContent(m, id, end)
	}
	return nil
}

// attach begins an attachment.
func (r *reader) attach(m *message) error {
	if r.attachments++; r.attachments > maxFiles {
		return damaged("more than %d attachments", maxFiles)
	}
	m.attachments = append(m.attachments, &attachment{})
	return nil
}

func (r *reader) attachmentContent(m *message, id uint16, end int64) error {
	a := m.attachments[len(m.attachments)-1]
	switch id {
	case attAttachTitle:
		return r.text(&a.title, false, end)
	case attTransportName:
		return r.text(&a.transport, false, end)
	case attAttachData:
		return r.data(a, end)
	}
	return r.eachProperty(end, func(tag uint32, end int64) error { return r.attachmentProperty(m, a, tag, end) })
}

// data lists the next octets up to end as a file of an attachment.
func (r *reader) data(a *attachment, end int64) error {
	a.files = append(a.files, len(r.files))
	return r.add(end, plain, File{})
}

// body lists the next octets up to end as a body of the message, unless there is no text in it.
func (r *reader) body(end int64, form form, name, mediaType string) error {
	count := len(r.files)
	if r.at.pos == end {
		return nil
	}
	if err := r.add(end, form, File{Name: name, Type: mediaType}); err != nil {
		return err
	}
	if r.files[count].Size == 0 {
		r.files = r.files[:count]
	}
	return nil
}

// describe gives the files of a message's attachments their names, for which the code page may come last.
func (r *reader) describe(m *message) {
	page := m.page()
	for _, a := range m.attachments {
		name := ""
		for _, candidate := range []text{a.long, a.short, a.title, a.display, a.transport} {
			if name = candidate.decode(page); name != "" {
				break
			}
		}
		for _, i := range a.files {
			f := &r.files[i]
			f.Name, f.Type = name, a.mime.decode(page)
			f.ContentID = withoutBrackets(a.contentID.decode(page))
		}
	}
}
