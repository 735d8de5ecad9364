package tnef

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// The TNEF writer of the tests. Parts are appended in the order that a test gives them.

const (
	levelMessage    = 1
	levelAttachment = 2
)

func le16(v int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(v)) }
func le32(v int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// stream is a whole TNEF stream with the attributes of every message, the code page among them.
func stream(page int, attributes ...[]byte) []byte {
	head := join([]byte(signature), le16(0x1234),
		attribute(levelMessage, 0x89006, le32(0x10000)),
		attribute(levelMessage, 0x69007, join(le32(page), le32(0))))
	return join(head, join(attributes...))
}

func attribute(level byte, id int, data []byte) []byte {
	sum := 0
	for _, b := range data {
		sum += int(b)
	}
	return join([]byte{level}, le32(id), le32(len(data)), data, le16(sum))
}

func messageProps(properties ...[]byte) []byte {
	return attribute(levelMessage, 0x69003, list(properties...))
}

// list is a counted list of properties.
func list(properties ...[]byte) []byte {
	return join(le32(len(properties)), join(properties...))
}

func begin() []byte { return attribute(levelAttachment, 0x69002, make([]byte, 14)) }

func title(name string) []byte { return attribute(levelAttachment, 0x18010, []byte(name+"\x00")) }

func data(b string) []byte { return attribute(levelAttachment, 0x6800f, []byte(b)) }

func attachProps(properties ...[]byte) []byte {
	return attribute(levelAttachment, 0x69005, list(properties...))
}

func padded(b []byte) []byte { return join(b, make([]byte, -len(b)&3)) }

// variable is a property with one value whose length stands before it.
func variable(id, kind int, value []byte) []byte {
	return join(le16(kind), le16(id), le32(1), le32(len(value)), padded(value))
}

func string8(id int, s string) []byte { return variable(id, typeString8, []byte(s+"\x00")) }

func wideOctets(s string) (out []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return out
}

func wideString(id int, s string) []byte {
	return variable(id, typeUnicode, wideOctets(s+"\x00"))
}

func binaryProp(id int, value string) []byte { return variable(id, typeBinary, []byte(value)) }

func long(id, value int) []byte { return join(le16(typeLong), le16(id), le32(value)) }

func object(iid, value string) []byte {
	return variable(idAttachData, typeObject, []byte(iid+value))
}

// embedded is an attachment that is a message.
func embedded(inner []byte) []byte {
	return join(begin(), title("message"),
		attachProps(long(0x3705, 5), object(embeddedMessage, string(inner)), string8(idDisplayName, "message")))
}

// compress writes RTF as [MS-OXRTFCP] has it, with the longest references that a plain search finds.
func compress(rtf string) string {
	window := []byte(dictionary)
	var out, group []byte
	control, tokens := byte(0), 0
	token := func(isReference bool, octets ...byte) {
		if isReference {
			control |= 1 << tokens
		}
		group = append(group, octets...)
		if tokens++; tokens == 8 {
			out = append(append(out, control), group...)
			control, tokens, group = 0, 0, nil
		}
	}
	for rest := []byte(rtf); len(rest) > 0; {
		length, from := longest(window, rest)
		if length < 2 {
			length = 1
			token(false, rest[0])
		} else {
			pair := from%dictionarySize<<4 | (length - 2)
			token(true, byte(pair>>8), byte(pair))
		}
		window, rest = append(window, rest[:length]...), rest[length:]
	}
	end := len(window) % dictionarySize << 4
	token(true, byte(end>>8), byte(end))
	if tokens > 0 {
		out = append(append(out, control), group...)
	}
	return rtfHead(len(out), len(rtf), kindCompressed, out) + string(out)
}

func rtfHead(octets, size, kind int, of []byte) string {
	sum := ^crc32.Update(^uint32(0), crc32.IEEETable, of)
	if kind == kindStored {
		sum = 0
	}
	return string(join(le32(octets+rtfHeader-4), le32(size), le32(kind), le32(int(sum))))
}

func stored(rtf string) string { return rtfHead(len(rtf), len(rtf), kindStored, nil) + rtf }

// longest finds the longest beginning of rest in what the window of the decoder still has.
func longest(window, rest []byte) (length, from int) {
	for size := min(17, len(rest)); size >= 2; size-- {
		start := max(0, len(window)-dictionarySize+1)
		if at := bytes.LastIndex(window[start:], rest[:size]); at >= 0 {
			return size, start + at
		}
	}
	return 0, 0
}
