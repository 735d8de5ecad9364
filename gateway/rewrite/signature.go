package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	if !isSignatureType(r.typ) || r.isMultipart() || r.doubt != "" || r.end-r.body > maxSignature || !knownEncoding(r.encoding) {
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

// looksLikeSignature takes the armor of OpenPGP (RFC 9580 section 6.2), and in base64 the DER SEQUENCE that
// begins a CMS signature (RFC 5652 section 3).
func looksLikeSignature(text []byte, encoding string) bool {
	armor := bytes.TrimLeft(text, " \t\r\n")
	return bytes.HasPrefix(armor, []byte("-----BEGIN PGP SIGNATURE-----")) ||
		bytes.HasPrefix(armor, []byte("-----BEGIN PGP MESSAGE-----")) ||
		encoding == "base64" && bytes.HasPrefix(text, []byte{0x30})
}
