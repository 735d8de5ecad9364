package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxSignature is the most bytes of an encoded signature. Even one with a chain of certificates is smaller.
const maxSignature = 32 << 10

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
