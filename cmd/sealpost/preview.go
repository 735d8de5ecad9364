package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/intake"
	"sealpost/gateway/spool"
)

type previewCommand struct {
	configFlag
	File  string `arg:"" help:"A mail as a file, or - for standard input."`
	From  string `help:"The return path." default:"customer@customer.example"`
	Route string `help:"The public address that it would come to; default: the first route." placeholder:"ADDRESS"`
	Mail  bool   `help:"Print the whole rewritten mail." default:"true" negatable:""`
}

// Run shows what would become of a mail. Nothing is sealed, stored or sent.
func (c *previewCommand) Run(ctx context.Context, std streams) (err error) {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	options, err := previewOptions(cfg)
	if err != nil {
		return err
	}
	route, err := c.route(cfg)
	if err != nil {
		return err
	}
	mail, err := c.spooled(cfg, std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mail.Close()) }()
	envelope := gateway.Envelope{
		MailFrom: c.From, Client: netip.IPv6Loopback(), Hello: "localhost", Protocol: "ESMTP", Received: time.Now(),
		Recipients: []gateway.Recipient{{Address: route.Address, Route: route}},
	}
	shown, err := intake.NewPreview(ctx, options, envelope, mail)
	if err != nil {
		return err
	}
	return c.print(std.out, shown)
}

func (c *previewCommand) route(cfg *config.Config) (gateway.Route, error) {
	want := c.Route
	if want == "" {
		want = cfg.Routes[0].Address
	}
	router, err := newRouter(cfg, nil)
	if err != nil {
		return gateway.Route{}, err
	}
	route, err := router.Route(c.From, want)
	if err != nil {
		return gateway.Route{}, usageError{fmt.Sprintf("--route %s: no route has this address", want)}
	}
	return route, nil
}

// spooled reads the mail as SMTP would bring it: with CRLF at the end of each line.
func (c *previewCommand) spooled(cfg *config.Config, std streams) (_ gateway.Spooled, err error) {
	in := std.in
	if c.File != "-" {
		if in, err = os.Open(c.File); err != nil {
			return nil, fmt.Errorf("read the mail: %w", err)
		}
		defer in.Close() //nolint:errcheck // it is only read
	}
	waiting, err := spool.Open(filepath.Join(cfg.Data, "spool"))
	if err != nil {
		return nil, err
	}
	mail := waiting.New()
	if _, err := io.Copy(&crlfWriter{w: mail}, in); err != nil {
		return nil, errors.Join(fmt.Errorf("read the mail: %w", err), mail.Close())
	}
	return mail, nil
}

// crlfWriter puts a CR before each LF that has none.
type crlfWriter struct {
	w    io.Writer
	last byte
}

func (c *crlfWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+len(p)/16+1)
	for _, b := range p {
		if b == '\n' && c.last != '\r' {
			out = append(out, '\r')
		}
		out = append(out, b)
		c.last = b
	}
	if _, err := c.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *previewCommand) print(w io.Writer, p *intake.Preview) error {
	if err := printPreview(w, p); err != nil || !c.Mail {
		return err
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return p.Write(w)
}

// previewOptions are those of a running gateway, without what asks others.
func previewOptions(cfg *config.Config) (intake.Options, error) {
	options, err := commonOptions(cfg)
	options.Logger = slog.New(slog.DiscardHandler)
	return options, err
}
