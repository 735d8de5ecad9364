package downgrade

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime/quotedprintable"
)

const lineLength = 76

var crlf = []byte("\r\n")

// encoder encodes a leaf line by line. The last line end waits until it is known whose it is.
type encoder struct {
	out     io.Writer
	base64  io.WriteCloser          // nil: quoted-printable
	quoted  *quotedprintable.Writer // of the line that is open
	pending bool
}

func newEncoder(out io.Writer, e encoding) *encoder {
	enc := &encoder{out: out}
	if e == base64Encoding {
		enc.base64 = base64.NewEncoder(base64.StdEncoding, &wrapper{out: out})
	}
	return enc
}

func (e *encoder) line(line []byte) error {
	if err := e.lineEnd(); err != nil {
		return err
	}
	line, e.pending = bytes.CutSuffix(line, crlf)
	if e.base64 != nil {
		_, err := e.base64.Write(line)
		return wrap(err)
	}
	if e.quoted == nil {
		e.quoted = quotedprintable.NewWriter(e.out)
		e.quoted.Binary = true // a bare CR is content
	}
	_, err := e.quoted.Write(line)
	return wrap(err)
}

// lineEnd writes the line end that waits, as content.
func (e *encoder) lineEnd() error {
	if !e.pending {
		return nil
	}
	e.pending = false
	if e.base64 != nil {
		_, err := e.base64.Write(crlf)
		return wrap(err)
	}
	if err := e.closeQuoted(); err != nil {
		return err
	}
	_, err := e.out.Write(crlf)
	return wrap(err)
}

func (e *encoder) closeQuoted() error {
	if e.quoted == nil {
		return nil
	}
	err := e.quoted.Close()
	e.quoted = nil
	return wrap(err)
}

func (e *encoder) close(atEnd bool) error {
	delimiter := e.pending && !atEnd
	if atEnd {
		if err := e.lineEnd(); err != nil {
			return err
		}
	}
	if err := e.closeQuoted(); err != nil {
		return err
	}
	if e.base64 != nil {
		if err := e.base64.Close(); err != nil {
			return wrap(err)
		}
	}
	if delimiter || e.base64 != nil && atEnd {
		_, err := e.out.Write(crlf)
		return wrap(err)
	}
	return nil
}

func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("write the mail: %w", err)
	}
	return nil
}

// wrapper breaks base64 into lines of 76 characters.
type wrapper struct {
	out    io.Writer
	column int
}

func (w *wrapper) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if w.column == lineLength {
			if _, err := w.out.Write(crlf); err != nil {
				return written, err
			}
			w.column = 0
		}
		n := min(len(p), lineLength-w.column)
		if _, err := w.out.Write(p[:n]); err != nil {
			return written, err
		}
		w.column, written, p = w.column+n, written+n, p[n:]
	}
	return written, nil
}
