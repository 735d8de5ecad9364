package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/rewrite"
	"sealpost/storage/blob"
)

// InlineLimit is the largest encrypted mail that waits in the database's row; a larger one is an object.
const InlineLimit = 64 << 10

// Copies keep the mails that wait for delivery: one OpenPGP packet each, under the queue key of the day.
type Copies struct{ blobs blob.Store }

// NewCopies returns Copies that keep large mails in blobs.
func NewCopies(blobs blob.Store) *Copies { return &Copies{blobs: blobs} }

// Open returns the mail in plaintext. The caller closes it. A copy that was altered or cut ends in an
// error, never in io.EOF.
func (c *Copies) Open(ctx context.Context, mail gateway.QueuedMail) (io.ReadCloser, error) {
	packet := io.NopCloser(bytes.NewReader(mail.Inline))
	if mail.Object != "" {
		var err error
		if packet, err = c.blobs.Get(ctx, mail.Object, 0, -1); err != nil {
			return nil, fmt.Errorf("read the queued mail: %w", err)
		}
	}
	plain, err := crypto.OpenQueued(packet, []byte(mail.Key.Key.Reveal()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("decrypt the queued mail: %w", err), packet.Close())
	}
	return readCloser{plain, packet}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// Seal encrypts a small mail of our own, such as a notice, into its row. It fails if that is over InlineLimit.
func (c *Copies) Seal(ctx context.Context, id gateway.PackageID, started time.Time, key gateway.QueueKey, mailFrom string,
	write func(io.Writer) error,
) (gateway.QueuedMail, error) {
	queued := gateway.QueuedMail{ID: id, MailFrom: gateway.NewSecret(mailFrom), Key: key}
	var meter *rewrite.Meter
	err := c.put(ctx, noObjects{}, &queued, started, func(w io.Writer) error {
		meter = rewrite.NewMeter(w)
		return write(meter)
	})
	if err != nil {
		return queued, err
	}
	written := meter.Written()
	queued.Size, queued.EightBit, queued.UTF8 = written.Size, written.EightBit, written.HeaderUTF8
	return queued, nil
}

// noObjects refuses what does not fit into a row.
type noObjects struct{}

func (noObjects) Put(context.Context, string, io.Reader) (int64, error) {
	return 0, errors.New("a mail of our own is too large")
}

// put encrypts what write writes and records in mail where it is.
func (c *Copies) put(ctx context.Context, to crypto.Putter, mail *gateway.QueuedMail, created time.Time, write func(io.Writer) error) error {
	out := &spill{ctx: ctx, to: to, name: crypto.QueueName(crypto.ID(mail.ID), created)}
	err := seal(out, []byte(mail.Key.Key.Reveal()), write)
	if err = errors.Join(err, out.finish(err)); err != nil {
		return err
	}
	if out.group == nil {
		mail.Inline = out.memory.Bytes()
	} else {
		mail.Object = out.name
	}
	return nil
}

func seal(out io.Writer, key []byte, write func(io.Writer) error) error {
	packet, err := crypto.SealQueued(out, key)
	if err != nil {
		return fmt.Errorf("encrypt the queued mail: %w", err)
	}
	if err := write(packet); err != nil {
		return err
	}
	if err := packet.Close(); err != nil {
		return fmt.Errorf("encrypt the queued mail: %w", err)
	}
	return nil
}

// spill keeps what is written in memory up to InlineLimit, and streams it into an object beyond that.
type spill struct {
	ctx    context.Context //nolint:containedctx // the life of one put, which io.Writer cannot hand in
	to     crypto.Putter
	name   string
	memory bytes.Buffer
	pipe   *io.PipeWriter
	group  *errgroup.Group // nil while memory is enough
}

func (s *spill) Write(p []byte) (int, error) {
	if s.group == nil && s.memory.Len()+len(p) <= InlineLimit {
		return s.memory.Write(p)
	}
	if s.group == nil {
		if err := s.start(); err != nil {
			return 0, err
		}
	}
	return s.pipe.Write(p)
}

func (s *spill) start() error {
	body, pipe := io.Pipe()
	s.pipe, s.group = pipe, &errgroup.Group{}
	s.group.Go(func() error {
		_, err := s.to.Put(s.ctx, s.name, body)
		_ = body.CloseWithError(err) // always nil
		return err
	})
	_, err := s.memory.WriteTo(pipe)
	return err
}

// finish ends the object, if one was begun, and waits for it. failed is why it must not be complete.
func (s *spill) finish(failed error) error {
	if s.group == nil {
		return nil
	}
	s.pipe.CloseWithError(failed)
	return s.group.Wait()
}
