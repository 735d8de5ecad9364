package rewrite

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"sealpost/gateway/rewrite/tnef"
)

// Item is one file that is to be sealed.
type Item struct {
	// Name is the exact name that the mail gives, or a made one where it gives none. Never log it.
	Name string
	// Type is the media type that the mail declares.
	Type string
	// Size is the number of bytes that Open gives.
	Size int64

	ext  string // of a name that is made, with the dot; "" if type and content tell
	open func() io.Reader
}

// Open returns the file's bytes from the beginning, decoded, as a stream. It may be called again; the
// source must still be there. Its errors are ErrPlan.
func (i Item) Open() io.Reader { return &itemReader{i.open()} }

type itemReader struct{ r io.Reader }

func (r *itemReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return n, err
}

// rawItem is a range of the source as it stands.
func rawItem(src io.ReaderAt, s span, name, typ string) Item {
	return Item{Name: name, Type: typ, Size: s.size(), open: func() io.Reader { return section(src, s) }}
}

// leafItem is the decoded body of p; or the body as it stands if its transfer encoding is unknown or broken,
// so that nothing is lost.
func leafItem(src io.ReaderAt, p *part, name string) (Item, error) {
	raw := rawItem(src, span{p.body, p.end}, name, p.typ)
	if !knownEncoding(p.encoding) || p.doubt == whyTwice {
		return raw, nil
	}
	if p.encoding != "base64" && p.encoding != "quoted-printable" {
		return raw, nil
	}
	item := Item{Name: name, Type: p.typ, Size: p.decoded, open: func() io.Reader { return decoder(src, p) }}
	if p.measured {
		return item, nil
	}
	r := decoder(src, p)
	size, err := io.Copy(io.Discard, r)
	if qp, ok := r.(*qpReader); ok && qp.dirty || errors.Is(err, errDirty) {
		return raw, nil
	}
	if err != nil {
		return Item{}, fmt.Errorf("decode a part: %w", err)
	}
	item.Size = size
	return item, nil
}

// madeName names a file that has no name, by its type, or by its first bytes where the type says nothing.
func madeName(n int, item Item) (string, error) {
	ext := item.ext
	if ext == "" {
		ext = extension(item.Type)
	}
	if ext == "" {
		head, err := readHead(item.Open(), min(maxHead, item.Size))
		if err != nil {
			return "", err
		}
		ext = ".bin"
		if tnef.Is(head) {
			return "winmail.dat", nil
		} else if found := mimetype.Detect(head).Extension(); found != "" {
			ext = found
		}
	}
	return fmt.Sprintf("attachment-%d%s", n, ext), nil
}

func extension(typ string) string {
	switch typ {
	case "message/rfc822", "message/global":
		return ".eml"
	case "text/plain":
		return ".txt"
	case "application/pgp-signature", "application/pgp-keys", "application/pgp-encrypted":
		return ".asc"
	case "application/pkcs7-signature", "application/x-pkcs7-signature":
		return ".p7s"
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		return ".p7m"
	case "application/ms-tnef", "application/vnd.ms-tnef":
		return ""
	case "application/octet-stream":
		return ""
	}
	if found := mimetype.Lookup(typ); found != nil {
		return found.Extension()
	}
	if strings.HasPrefix(typ, "text/") || strings.HasPrefix(typ, "message/") {
		return ".txt"
	}
	return ""
}

// fileExtension is one that is no number, as that of "Invoice No. 5" or "version 1.2".
var fileExtension = regexp.MustCompile(`(?i)\.[0-9_-]*[a-z][a-z0-9_-]*$`)

// nameExtension returns the extension by which a computer opens a file, lower-cased and with its dot; "" if there is none.
func nameExtension(name string) string {
	return strings.ToLower(fileExtension.FindString(strings.TrimRight(name, ". ")))
}
