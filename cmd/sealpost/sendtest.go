package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

// followEvery is how often send-test looks where its mail is.
const followEvery = 200 * time.Millisecond

type sendTestCommand struct {
	configFlag
	To   string        `help:"A public address; default: the first route." placeholder:"ADDRESS"`
	From string        `help:"The return path; default: postmaster at our host name." placeholder:"ADDRESS"`
	Wait time.Duration `help:"How long to follow it." default:"1m"`
}

// Run sends a mail with an attachment through the running gateway, and follows it to the next hop.
func (c *sendTestCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(cfg *config.Config, s *stores) error {
		if c.To == "" {
			c.To = cfg.Routes[0].Address
		}
		if c.From == "" {
			c.From = config.PostmasterAddress + "@" + cfg.Hostname
		}
		messageID := "<" + strings.ToLower(rand.Text()) + "@" + cfg.Hostname + ">"
		if err := c.send(ctx, cfg.SMTP.Listen[0], messageID); err != nil {
			return fmt.Errorf("the gateway at %s did not take the mail: %w", cfg.SMTP.Listen[0], err)
		}
		if _, err := fmt.Fprintf(std.out, "sent as %s; the gateway has taken it\n", messageID); err != nil {
			return err
		}
		return follow(ctx, std.out, s, gateway.NewSecret(messageID), c.Wait)
	})
}

func (c *sendTestCommand) send(ctx context.Context, address, messageID string) (err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("read smtp.listen: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	client, err := smtp.NewClientStartTLS(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the mail is a test, sent to our own host
	if err != nil {
		if conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(host, port)); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		client = smtp.NewClient(conn)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return client.SendMail(c.From, []string{c.To}, c.mail(messageID))
}

func (c *sendTestCommand) mail(messageID string) io.Reader {
	content := base64.StdEncoding.EncodeToString([]byte("Sealpost took this file out of a test mail.\n"))
	return strings.NewReader(fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: Sealpost test\r\nDate: %s\r\nMessage-ID: %s\r\n"+
		"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"sealpost-test\"\r\n\r\n"+
		"--sealpost-test\r\nContent-Type: text/plain\r\n\r\nThis mail shows that Sealpost works. Its file was sealed.\r\n"+
		"--sealpost-test\r\nContent-Type: text/plain; name=\"test.txt\"\r\nContent-Disposition: attachment; filename=\"test.txt\"\r\n"+
		"Content-Transfer-Encoding: base64\r\n\r\n%s\r\n--sealpost-test--\r\n",
		c.From, c.To, time.Now().Format(time.RFC1123Z), messageID, content))
}

// follow waits until each delivery of the mail has ended, and tells its way.
func follow(ctx context.Context, w io.Writer, s *stores, messageID gateway.Secret, wait time.Duration) error {
	over := time.After(wait)
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		ids, err := s.meta.FindMails(ctx, messageID, 1)
		if err != nil {
			return err
		}
		if len(ids) == 1 {
			deliveries, err := s.meta.ListDeliveries(ctx, meta.DeliveryFilter{Mail: ids[0]})
			if err != nil {
				return err
			}
			if settled(deliveries) {
				return arrival(ctx, w, s, ids[0], deliveries)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			if len(ids) == 0 {
				return errors.New("the mail is not in this installation's database: does the gateway run with this configuration?")
			}
			return errors.Join(traceMail(ctx, w, s, ids[0]), errors.New("the mail still waits; the last answer above says why"))
		}
	}
}

func settled(deliveries []gateway.Delivery) bool {
	for _, d := range deliveries {
		if d.State == gateway.Pending || d.State == gateway.Sending {
			return false
		}
	}
	return len(deliveries) > 0
}

func arrival(ctx context.Context, w io.Writer, s *stores, id gateway.PackageID, deliveries []gateway.Delivery) error {
	if err := traceMail(ctx, w, s, id); err != nil {
		return err
	}
	for _, d := range deliveries {
		if d.State == gateway.Dead || d.State == gateway.Held || d.State == gateway.Dropped {
			return fmt.Errorf("the mail did not arrive: it is %s", d.State)
		}
	}
	return nil
}
