package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// maxSignature is the most bytes of an encoded signature. Even one with a chain of certificates is smaller.
const maxSignature = 32 << 10

// closeEnvelope settles a signed or encrypted entity. Untouched it stays as it is. Of an encrypted one with a file half is
// worth nothing, so it is sealed as one; so is a signed one of which no text would be left. Else a signed one loses its
// signature with its file: all of it is sealed as evidence, and its text stays.
func (p *Plan) closeEnvelope(q *part) error {
	signature, err := signatureOf(p.msg.src, q)
	if err != nil {
		return err
	}
	sealed, text := false, false
	q.walk(func(r *part) bool {
		_, has := p.inside[r]
		sealed = sealed || has || p.fates[r] != stays && r != signature
		text = text || !r.isMultipart() && r != signature && p.fates[r] != leaves
		return true
	})
	switch {
	case !sealed:
		p.keepEnvelope(q, signature, "")
	case q.typ == "multipart/signed" && text && !p.rules.SealSigned:
		p.unsign(q, signature)
	case q.parent == nil:
		p.whole = whyEnvelope
	default:
		p.keepEnvelope(q, nil, "it is in a signed or encrypted message with a file")
		p.fates[q] = leaves
	}
	return nil
}

// keepEnvelope keeps q together. why says it of all its parts, if it is given.
func (p *Plan) keepEnvelope(q, signature *part, why string) {
	q.walk(func(r *part) bool {
		switch {
		case why != "":
			p.whys[r] = why
		case r == signature:
			p.whys[r] = "the signature of what stays as it is"
		}
		delete(p.fates, r)
		delete(p.inside, r)
		delete(p.unsigned, r)
		return true
	})
}

// unsign makes a multipart/mixed of q, which is sealed as evidence; its parts stay or leave as they would without a
// signature.
func (p *Plan) unsign(q, signature *part) {
	p.unsigned[q] = signature
	if signature != nil {
		p.fates[signature] = leaves
		p.whys[signature] = "the signature of a message with a file: that message is sealed as " + signedName
	}
}

// evidence returns the item of a signed entity that loses its signature, unless it is a part of another such.
func (p *Plan) evidence(q *part) (Item, bool) {
	if !p.isUnsigned(q) {
		return Item{}, false
	}
	for r := q.parent; r != nil; r = r.parent {
		if p.isUnsigned(r) {
			return Item{}, false
		}
	}
	entity := span{q.start, q.end}
	if q.parent == nil {
		entity = span{0, p.msg.src.Size()}
	}
	return rawItem(p.msg.src, entity, signedName, "message/rfc822"), true
}

func (p *Plan) isUnsigned(q *part) bool {
	_, is := p.unsigned[q]
	return is
}

// isSignature reports whether r is the signature of an entity that is evidence, and so no item of its own.
func (p *Plan) isSignature(r *part) bool { return r.parent != nil && p.unsigned[r.parent] == r }

// unsignEdits label the signed entities that lose their signature as multipart/mixed.
func (p *Plan) unsignEdits() ([]edit, error) {
	var edits []edit
	for q := range p.unsigned {
		if p.leaves(q) {
			continue
		}
		block := make([]byte, q.body-q.start)
		if _, err := p.msg.src.ReadAt(block, q.start); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read a header: %w", err)
		}
		first := true
		for _, f := range fields(block, q.start) {
			switch {
			case f.name != "content-type":
			case first:
				boundary := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(q.boundary.value)
				edits = append(edits, replace(f.span, "Content-Type: multipart/mixed;\r\n\tboundary=\""+boundary+"\"\r\n"))
				first = false
			default:
				edits = append(edits, remove(f.span)) // the same again
			}
		}
	}
	return edits, nil
}

// signedName is the file of a signed message.
const signedName = "signed-message.eml"

func envelopeName(q *part) string {
	if q.typ == "multipart/signed" {
		return signedName
	}
	return "encrypted-message.eml"
}

// signatureOf returns the detached signature of q, the second of its two parts (RFC 1847 section 2.1); nil
// if that part is not one by its type, its size and its content: then it is a file like any other.
func signatureOf(src io.ReaderAt, q *part) (*part, error) {
	if q.typ != "multipart/signed" || len(q.children) != 2 {
		return nil, nil
	}
	r := q.children[1]
	if !isSignatureType(r.typ) || !isSignatureName(r.name) || r.isMultipart() || r.doubt != "" || r.end-r.body > maxSignature || !knownEncoding(r.encoding) {
		return nil, nil
	}
	text, err := io.ReadAll(decoder(src, r))
	switch {
	case errors.Is(err, errDirty):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at a signature: %w", err)
	case looksLikeSignature(text, r.encoding):
		return r, nil
	}
	return nil, nil
}

func isSignatureType(typ string) bool {
	switch typ {
	case "application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature":
		return true
	}
	return false
}

// isSignatureName reports whether nobody's computer takes a file of this name for more than a signature.
func isSignatureName(name string) bool {
	switch nameExtension(name) {
	case "", ".p7s", ".asc", ".sig", ".pgp":
		return true
	}
	return false
}

// looksLikeSignature takes the armor of OpenPGP, and in base64 a signature of CMS.
func looksLikeSignature(text []byte, encoding string) bool {
	return isArmor(text) || encoding == "base64" && isSignedData(text)
}

// armor is one block and nothing else (RFC 9580 section 6.2), of fields and base64.
var armor = regexp.MustCompile(`^\s*-----BEGIN PGP (SIGNATURE|MESSAGE)-----[ \t]*\r?\n(?:[A-Za-z-]+:[^<\r\n]*\r?\n)*` +
	`(?:[A-Za-z0-9+/=]{0,100}[ \t]*\r?\n)+-----END PGP (SIGNATURE|MESSAGE)-----\s*$`)

func isArmor(text []byte) bool { return armor.Match(text) }

// isSignedData takes the SEQUENCE of CMS that says that it is signed data, to its last octet (RFC 5652 sections 3 and 5.1).
// Readers of archives look for theirs from the end.
func isSignedData(text []byte) bool {
	const signedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	if len(text) < 2 || text[0] != 0x30 || bytes.Contains(text, []byte("PK\x05\x06")) {
		return false
	}
	if text[1] == 0x80 { // BER, of indefinite length
		return bytes.HasPrefix(text[2:], []byte(signedData)) && bytes.HasSuffix(text, []byte{0, 0})
	}
	content := lengthOctets(text[1:])
	return content != nil && bytes.HasPrefix(content, []byte(signedData))
}

// lengthOctets returns what stands behind the length octets of BER (X.690 section 8.1.3), nil if it is not as long as they say.
func lengthOctets(text []byte) []byte {
	length, content := int(text[0]), text[1:]
	if n := length & 0x7f; length > 0x7f {
		if n > 4 || n > len(content) {
			return nil
		}
		length = 0
		for _, b := range content[:n] {
			length = length<<8 | int(b)
		}
		content = content[n:]
	}
	if length != len(content) {
		return nil
	}
	return content
}
