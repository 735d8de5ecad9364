// Package tnef reads Microsoft's Transport Neutral Encapsulation Format, the winmail.dat of Outlook and Exchange
// ([MS-OXTNEF]), so that the files in it can be sealed one by one.
//
// Read passes once over a stream and lists its files; Open reads the same stream again and gives one of them. A file
// is a place in the outermost stream, however deep it lies, so nothing is buffered: memory depends on the number of
// files and the length of their names, never on a size that the stream claims.
//
// # What is a file
//
// The data of an attachment, from attAttachData as well as from PR_ATTACH_DATA_BIN and PR_ATTACH_DATA_OBJ; where an
// attachment has several, each is a file. An OLE object comes out as it stands, without its interface identifier. An
// embedded message is a TNEF stream in the stream: its files stand in the same list. A file that happens to be TNEF is a
// file. The bodies of a message are
// files too, since a mail may carry its text nowhere else: message.rtf (decompressed), message.txt and message.html,
// as many of them as there are, unless they are empty. Icons of attachments (attAttachMetaFile) are none, and an
// attachment that only refers to a file elsewhere has none.
//
// # What is damaged
//
// A stream that is cut, whose checksums or lengths are wrong, or that says two things, such as an attachment with two
// different long names. Other readers may make something else of such a stream, so the caller seals it whole. So it
// is with more than 1000 files or 8 levels of messages in messages. Attributes and properties that are unknown are
// passed over, but their lengths and checksums must be right, and so must the sizes and the CRC of compressed RTF. NUL, CR and LF after the last attribute are let pass.
package tnef

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	maxDepth      = 8        // messages within messages
	maxFiles      = 1000     // also of attachments, with or without data
	maxAttributes = 1 << 16  // in all messages together
	maxProperties = 1 << 18  // likewise; each value of a multi-valued property counts
	maxText       = 64 << 10 // octets of one name
	maxTexts      = 4 << 20  // octets of all names together
	signature     = "\x78\x9f\x3e\x22"
)

// ErrDamaged tells that a stream is not what [MS-OXTNEF] says, or passes a limit of this package. It is wrapped with
// what was wrong; the text holds nothing of the stream's content but numbers.
var ErrDamaged = errors.New("damaged TNEF stream")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// Is reports whether a stream that begins with head is TNEF: the first 4 octets tell.
func Is(head []byte) bool {
	return bytes.HasPrefix(head, []byte(signature))
}

// File is one file in a TNEF stream.
type File struct {
	Name      string // as the sender gave it, in UTF-8; not safe to show; empty where there is none
	Type      string // the media type it declares (PR_ATTACH_MIME_TAG), unchecked; empty where there is none
	ContentID string // without angle brackets, unchecked; empty where there is none
	Size      int64  // octets that Open gives

	place place
}

// Read reads a TNEF stream to its end and lists its files in the order of their bytes. Its error is ErrDamaged or an
// error of in, both wrapped; then there are no files.
func Read(in io.Reader) ([]File, error) {
	r := newReader(in)
	if err := r.message(endless, 0, 0); err != nil {
		return nil, fmt.Errorf("read TNEF at %d: %w", r.at.pos, err)
	}
	return r.files, nil
}

// reader lists the files of a stream and of the messages embedded in it.
type reader struct {
	at    *cursor
	files []File

	attributes, properties, attachments, texts int // used of the limits
}

func newReader(in io.Reader) *reader {
	return &reader{at: newCursor(in)}
}

// add lists a file whose bytes are the next ones up to end, and passes over them.
func (r *reader) add(end int64, form form, f File) error {
	if len(r.files) == maxFiles {
		return damaged("more than %d files", maxFiles)
	}
	f.place = place{offset: r.at.pos, length: end - r.at.pos, form: form}
	size, err := io.Copy(io.Discard, f.place.decode(&section{r.at, end}))
	if err != nil {
		return err
	}
	f.Size = size
	r.files = append(r.files, f)
	return r.at.skip(end)
}
