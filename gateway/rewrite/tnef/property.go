package tnef

import "bytes"

// Property identifiers ([MS-OXPROPS]).
const (
	idBody           = 0x1000
	idRTFCompressed  = 0x1009
	idHTML           = 0x1013
	idDisplayName    = 0x3001
	idAttachData     = 0x3701
	idAttachFilename = 0x3704
	idLongFilename   = 0x3707
	idMimeTag        = 0x370e
	idContentID      = 0x3712
	idInternetCPID   = 0x3fde
	idNamed          = 0x8000 // and above: the property's name stands in the stream
)

// Property types ([MS-OXCDATA] section 2.11.1).
const (
	typeLong    = 0x0003
	typeObject  = 0x000d
	typeString8 = 0x001e
	typeUnicode = 0x001f
	typeBinary  = 0x0102
	multiValued = 0x1000
)

// embeddedMessage is IID_IMessage, {00020307-0000-0000-C000-000000000046}.
const embeddedMessage = "\x07\x03\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"

// width tells how many octets a value of a type takes in the stream, padding left out, and whether its length stands
// before it instead.
func width(kind uint16) (octets int64, variable, known bool) {
	switch kind {
	case typeString8, typeUnicode, typeBinary, typeObject:
		return 0, true, true
	case 0x0000, 0x0001: // unspecified, null
		return 0, false, true
	case 0x0002, 0x000b: // 16 bit integer, boolean
		return 2, false, true
	case typeLong, 0x0004, 0x000a: // single float, error code
		return 4, false, true
	case 0x0005, 0x0006, 0x0007, 0x0014, 0x0040: // double float, currency, date, 64 bit integer, time
		return 8, false, true
	case 0x0048: // GUID
		return 16, false, true
	}
	return 0, false, false
}

// use takes the value of a property out of the stream: the octets up to end. It may leave some.
type use func(tag uint32, end int64) error

// eachProperty reads a list of properties ([MS-OXTNEF] section 2.1.3.4) that fills the octets up to end. Named and
// multi-valued ones are passed over.
func (r *reader) eachProperty(end int64, value use) error {
	count, err := r.at.uint32(end)
	if err != nil {
		return err
	}
	for range count {
		if err := r.property(end, value); err != nil {
			return err
		}
	}
	if r.at.pos != end {
		return damaged("octets behind the last property")
	}
	return nil
}

func (r *reader) property(end int64, value use) error {
	tag, err := r.at.uint32(end)
	if err != nil {
		return err
	}
	if tag>>16 >= idNamed {
		if err := r.passName(end); err != nil {
			return err
		}
	}
	kind := uint16(tag)
	size, variable, known := width(kind &^ multiValued)
	if !known {
		return damaged("a property of the unknown type %#04x", kind)
	}
	count := uint32(1)
	if variable || kind&multiValued != 0 {
		if count, err = r.at.uint32(end); err != nil {
			return err
		}
	}
	if kind&multiValued == 0 && count > 1 {
		return damaged("a property with %d values for one", count)
	}
	if tag>>16 >= idNamed || kind&multiValued != 0 {
		value = nil
	}
	for range count {
		if err := r.value(tag, size, variable, end, value); err != nil {
			return err
		}
	}
	return nil
}

// value reads one value of a property and the padding behind it.
func (r *reader) value(tag uint32, size int64, variable bool, end int64, value use) error {
	if r.properties++; r.properties > maxProperties {
		return damaged("more than %d properties", maxProperties)
	}
	if variable {
		length, err := r.at.uint32(end)
		if err != nil {
			return err
		}
		size = int64(length)
	}
	stop, err := r.at.within(size, end)
	if err != nil {
		return err
	}
	if value != nil {
		if err := value(tag, stop); err != nil {
			return err
		}
	}
	if err := r.at.skip(stop); err != nil {
		return err
	}
	return r.pad(size, end)
}

// pad passes over what fills a value up to 4 octets. Some senders leave it out at the very end.
func (r *reader) pad(size, end int64) error {
	return r.at.skip(min(r.at.pos+(-size&3), end))
}

// passName passes over the name of a named property: a GUID, and a number or a string ([MS-OXTNEF] section 2.1.3.4).
func (r *reader) passName(end int64) error {
	var guid [16]byte
	if err := r.at.fill(guid[:], end); err != nil {
		return err
	}
	kind, err := r.at.uint32(end)
	if err != nil {
		return err
	}
	number, err := r.at.uint32(end) // or the length of the string
	if err != nil || kind == 0 {
		return err
	}
	if kind != 1 {
		return damaged("a property name of kind %d", kind)
	}
	stop, err := r.at.within(int64(number), end)
	if err != nil {
		return err
	}
	if err := r.at.skip(stop); err != nil {
		return err
	}
	return r.pad(int64(number), end)
}

// messageProperty lists the bodies of a message.
func (r *reader) messageProperty(m *message, tag uint32, end int64) error {
	form, isText := plain, true
	switch uint16(tag) {
	case typeString8:
		form = narrow
	case typeUnicode:
		form = wide
	default:
		isText = false
	}
	isBinary := uint16(tag) == typeBinary
	switch id := tag >> 16; {
	case id == idInternetCPID && uint16(tag) == typeLong:
		page, err := r.at.uint32(end)
		m.internet = page
		return err
	case id == idBody && isText:
		return r.body(end, form, "message.txt", "text/plain")
	case id == idHTML && (isText || isBinary):
		return r.body(end, form, "message.html", "text/html")
	case id == idRTFCompressed && isBinary:
		return r.body(end, compressed, "message.rtf", "application/rtf")
	}
	return nil
}

// attachmentProperty keeps the names of an attachment and lists its data.
func (r *reader) attachmentProperty(m *message, a *attachment, tag uint32, end int64) error {
	kind := uint16(tag)
	if tag>>16 == idAttachData && (kind == typeBinary || kind == typeObject) {
		return r.attachmentData(m, a, kind, end)
	}
	if kind != typeString8 && kind != typeUnicode {
		return nil
	}
	if name := a.name(tag >> 16); name != nil {
		return r.text(name, kind == typeUnicode, end)
	}
	return nil
}

// name returns where the value of a property goes, nil for one that does not matter.
func (a *attachment) name(id uint32) *text {
	switch id {
	case idLongFilename:
		return &a.long
	case idAttachFilename:
		return &a.short
	case idDisplayName:
		return &a.display
	case idMimeTag:
		return &a.mime
	case idContentID:
		return &a.contentID
	}
	return nil
}

// attachmentData lists PR_ATTACH_DATA_BIN, or PR_ATTACH_DATA_OBJ, which begins with its interface identifier. That
// one says whether it is a message, for PR_ATTACH_METHOD comes behind it in a stream.
func (r *reader) attachmentData(m *message, a *attachment, kind uint16, end int64) error {
	if kind == typeBinary {
		return r.data(a, end)
	}
	var iid [len(embeddedMessage)]byte
	if err := r.at.fill(iid[:], end); err != nil {
		return err
	}
	if bytes.Equal(iid[:], []byte(embeddedMessage)) {
		return r.message(end, m.depth+1, m.page())
	}
	return r.data(a, end)
}
