package crypto

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// queuedBuffer suits the few KiB that most waiting mails have.
const queuedBuffer = 16 << 10

// NewQueueKey returns a fresh key of 32 bytes for mails that wait for their deliveries.
func NewQueueKey() []byte {
	key := make([]byte, sessionKeySize)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return key
}

// SealQueued encrypts what is written to it and writes one OpenPGP packet to w. Close ends the packet and
// must succeed before it counts; it does not close w.
func SealQueued(w io.Writer, key []byte) (io.WriteCloser, error) {
	out := bufio.NewWriterSize(w, queuedBuffer)
	literal, err := sealPacket(out, key)
	if err != nil {
		return nil, err
	}
	return &queuedWriter{in: bufio.NewWriterSize(literal, queuedBuffer), literal: literal, out: out}, nil
}

// queuedWriter buffers on both sides of the encryption: small writes would become small partial lengths.
type queuedWriter struct {
	in      *bufio.Writer
	literal io.Closer
	out     *bufio.Writer
	closed  bool
}

// Write implements io.Writer.
func (q *queuedWriter) Write(p []byte) (int, error) {
	if q.closed {
		return 0, errors.New("write after close")
	}
	return q.in.Write(p)
}

// Close implements io.Closer.
func (q *queuedWriter) Close() error {
	if q.closed {
		return errors.New("closed twice")
	}
	q.closed = true
	if err := q.in.Flush(); err != nil {
		return fmt.Errorf("encrypt the mail: %w", err)
	}
	if err := q.literal.Close(); err != nil {
		return fmt.Errorf("end the encrypted mail: %w", err)
	}
	if err := q.out.Flush(); err != nil {
		return fmt.Errorf("write the encrypted mail: %w", err)
	}
	return nil
}

// OpenQueued returns a reader of what SealQueued encrypted. It gives io.EOF only when all of r, to its end,
// has been verified; if r was cut or altered, or key is another, it fails with ErrAltered instead. If r
// fails, so does the reader, with r's error. A reader that has not come to io.EOF has read a mail that may
// lack its end.
func OpenQueued(r io.Reader, key []byte) (io.Reader, error) {
	src := &source{r: r, stop: never}
	packet, err := openPacket(bufio.NewReaderSize(src, queuedBuffer), key)
	if err != nil {
		return nil, src.explain(err)
	}
	return &queuedReader{packet: packet, src: src}, nil
}

type queuedReader struct {
	packet *sealedReader
	src    *source
}

// Read implements io.Reader.
func (q *queuedReader) Read(p []byte) (int, error) {
	n, err := q.packet.Read(p)
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, q.src.explain(err)
}
