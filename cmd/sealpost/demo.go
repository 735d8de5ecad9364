package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/emersion/go-smtp"

	"golang.org/x/sync/errgroup"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/gateway/telemetry"
	"sealpost/sfclient/sftest"
)

//go:embed demo
var demoFiles embed.FS

const (
	demoAgent      = "agent@example.com"
	demoRoute      = "support@example.com"
	demoForwardTo  = "support@x-1a2b3c.case.salesforce.com"
	demoPostmaster = "postmaster@x-1a2b3c.case.salesforce.com"
	demoSender     = "jane.doe@customer.example"
	demoWait       = 30 * time.Second
)

type demoCommand struct {
	Once         bool   `help:"Send the sample, open its link, compare every file, and exit."`
	SMTPListen   string `help:"Where to take mail." default:"127.0.0.1:2525" placeholder:"HOST:PORT"`
	PortalListen string `help:"Where the portal listens." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
}

// demo is a whole installation with throw-away data, and the org behind it.
type demo struct {
	std      streams
	cfg      *config.Config
	file     string
	password gateway.Secret
	org      *sftest.Org
	printing sync.Mutex
}

// Run sets everything up, sends the sample mail, and shows what became of it.
func (c *demoCommand) Run(ctx context.Context, std streams) (err error) {
	dir, err := os.MkdirTemp("", "sealpost-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{std: std, password: gateway.NewSecret(rand.Text()[:12])}
	if d.org, err = sftest.Start(ctx, sftest.Options{OnMail: d.arrived, EmailToCase: demoOrg()}); err != nil {
		return fmt.Errorf("start the stand-in for Salesforce: %w", err)
	}
	defer func() { err = errors.Join(err, d.org.Close()) }()
	if err := d.install(ctx, filepath.Join(dir, "sealpost"), c); err != nil {
		return err
	}
	logger, err := telemetry.NewLogger(std.err, "text", "warn")
	if err != nil {
		return err
	}
	return d.run(ctx, logger, c.Once)
}

// demoOrg is an org whose Email-to-Case knows the demo's route.
func demoOrg() *sftest.EmailToCase {
	return &sftest.EmailToCase{Routing: []sftest.RoutingAddress{
		{Address: demoForwardTo, Public: demoRoute}, {Address: demoPostmaster},
	}}
}

func (d *demo) install(ctx context.Context, dir string, c *demoCommand) error {
	values := config.Values{
		Hostname: "mx.example.com", Data: filepath.Join(dir, "data"), Keyring: filepath.Join(dir, "keyring"),
		PostmasterForwardTo: demoPostmaster, NextHop: "smtp://" + d.org.Addr(),
		SMTPListen: c.SMTPListen, PortalListen: c.PortalListen, PortalURL: "http://" + c.PortalListen,
		Routes:      []config.RouteValues{{Address: demoRoute, ForwardTo: demoForwardTo}},
		RecoveryKey: filepath.Join(dir, publicKeyName),
	}
	if err := writeInstallation(dir, dir+"-recovery-private.asc", values, gateway.NewSecret(rand.Text())); err != nil {
		return err
	}
	d.file = filepath.Join(dir, configName)
	return configFlag{Config: d.file}.withStores(ctx, func(cfg *config.Config, s *stores) error {
		d.cfg = cfg
		hash, err := crypto.NewPasswords().Hash(ctx, d.password.Reveal())
		if err == nil {
			_, err = s.meta.AddAgent(ctx, demoAgent, gateway.NewSecret(hash), byAdmin())
		}
		return named("add the demo's agent", err)
	})
}

// run serves until ctx ends; once ends it by itself.
func (d *demo) run(ctx context.Context, logger *slog.Logger, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	group.Go(func() error { return serve(ctx, d.cfg, logger, func() { close(ready) }) })
	group.Go(func() error { return d.tellCases(ctx) })
	group.Go(func() error {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
		if err := d.show(ctx, once); err != nil {
			return err
		}
		if once {
			stop()
		}
		return nil
	})
	return group.Wait()
}

func (d *demo) show(ctx context.Context, once bool) error {
	sample, err := demoFiles.Open("demo/sample.eml")
	if err != nil {
		return fmt.Errorf("read the sample mail: %w", err)
	}
	defer sample.Close() //nolint:errcheck // it is only read
	if err := sendSample(ctx, d.cfg.SMTP.Listen[0], sample); err != nil {
		return fmt.Errorf("send the sample mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, demoWait)
	defer cancel()
	mails, err := d.org.Wait(ctx, 1)
	if err != nil {
		return fmt.Errorf("wait for the sample mail at the other end: %w", err)
	}
	if err := d.org.WaitProcessed(ctx, 1); err != nil {
		return fmt.Errorf("wait for the sample mail's Case: %w", err)
	}
	if cases := d.org.Cases(); len(cases) != 1 {
		return fmt.Errorf("the sample mail opened %d Cases, want one", len(cases))
	}
	links := sftest.Links(mails[0])
	if len(links) != 1 {
		return fmt.Errorf("the mail that arrived has %d Secure Links, want one", len(links))
	}
	if once {
		return d.compare(ctx, links[0])
	}
	return d.explain()
}

// sendSample speaks SMTP as a customer's mail server would.
func sendSample(ctx context.Context, address string, mail io.Reader) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	client := smtp.NewClient(conn)
	err = client.SendMail(demoSender, []string{demoRoute}, mail)
	return errors.Join(err, client.Quit())
}

// arrived prints a mail as the other end received it.
func (d *demo) arrived(mail sftest.Mail) {
	d.printing.Lock()
	defer d.printing.Unlock()
	const most = 8 << 10
	raw := mail.Raw[:min(len(mail.Raw), most)]
	text := strings.ReplaceAll(strings.TrimRight(string(raw), "\r\n"), "\r\n", "\n    ")
	_, _ = fmt.Fprintf(d.std.out, "\nArrived at Salesforce's end, for %s, %s:\n\n    %s\n", strings.Join(mail.To, ", "), humanSize(mail.Size), text)
	for _, link := range sftest.Links(mail) {
		_, _ = fmt.Fprintf(d.std.out, "\nIts Secure Link:\n    %s\n", link)
	}
}

// tellCases prints what Email-to-Case made of each mail, until ctx ends.
func (d *demo) tellCases(ctx context.Context) error {
	var mails, dropped, bounced int
	for n := 1; ctx.Err() == nil; n++ {
		if err := d.org.WaitProcessed(ctx, n); err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for Email-to-Case: %w", err)
		}
		for ; mails < len(d.org.EmailMessages()); mails++ {
			m := d.org.EmailMessages()[mails]
			d.tell("\nSalesforce made it a mail of Case %s, %s.\n", m.CaseNumber,
				choose(m.HasAttachment, "WITH an attachment", "without any attachment"))
		}
		for ; dropped < len(d.org.Dropped()); dropped++ {
			d.tell("\nSalesforce dropped it without a word: %s.\n", d.org.Dropped()[dropped].Reason)
		}
		for ; bounced < len(d.org.Bounces()); bounced++ {
			d.tell("\nSalesforce sent it back: %s.\n", d.org.Bounces()[bounced].Reason)
		}
	}
	return nil
}

func (d *demo) tell(format string, values ...any) {
	d.printing.Lock()
	defer d.printing.Unlock()
	_, _ = fmt.Fprintf(d.std.out, format, values...)
}

func (d *demo) explain() error {
	d.printing.Lock()
	defer d.printing.Unlock()
	_, err := fmt.Fprintf(d.std.out, `
Open it in a browser, as the agent
    %[1]s
with the password
    %[2]s
or on the command line:
    SEALPOST_PASSWORD=%[2]s %[3]s open 'LINK' --out /tmp/opened --agent %[1]s

Try a mail of your own:
    swaks --server %[4]s --from you@customer.example --to %[5]s --attach @FILE

Where is a mail, and why?
    %[3]s queue list --config %[6]s

It keeps running until Ctrl-C; then all of it is gone.
`, demoAgent, d.password.Reveal(), os.Args[0], d.cfg.SMTP.Listen[0], demoRoute, d.file)
	return err
}

// compare opens the link and compares every file with what was sent.
func (d *demo) compare(ctx context.Context, text string) (err error) {
	link, err := crypto.ParseLink(text)
	if err != nil {
		return fmt.Errorf("read the Secure Link: %w", err)
	}
	client, err := logIn(ctx, link.Portal, demoAgent, d.password)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	defer func() { err = errors.Join(err, client.logOut(context.WithoutCancel(ctx))) }()
	opened, objects, err := client.open(ctx, link)
	if err != nil {
		return fmt.Errorf("open the package: %w", err)
	}
	want, err := demoFiles.ReadDir("demo")
	if err != nil {
		return fmt.Errorf("list the demo's files: %w", err)
	}
	table := tabwriter.NewWriter(d.std.out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprint(table, "\nFILE\tSIZE\tRESULT\n")
	same, expected := 0, 0
	for _, entry := range want {
		if strings.HasSuffix(entry.Name(), ".eml") {
			continue
		}
		expected++
		result := d.compareFile(ctx, opened, objects, entry.Name())
		if result == nil {
			same++
		}
		_, _ = fmt.Fprintf(table, "%s\n", row(entry.Name(), opened, result))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if same != expected || len(opened.Manifest().Items) != expected {
		return fmt.Errorf("%d of %d files came back as they were sent", same, expected)
	}
	return nil
}

func row(name string, opened *crypto.Opened, result error) string {
	size, word := "-", "same bytes"
	for _, item := range opened.Manifest().Items {
		if item.Name == name {
			size = humanSize(item.Size)
		}
	}
	if result != nil {
		word = result.Error()
	}
	return name + "\t" + size + "\t" + word
}

// compareFile returns nil when the package holds the file of that name byte for byte.
func (d *demo) compareFile(ctx context.Context, opened *crypto.Opened, objects crypto.Getter, name string) error {
	want, err := demoFiles.ReadFile(path.Join("demo", name))
	if err != nil {
		return fmt.Errorf("read what was sent: %w", err)
	}
	for ordinal, item := range opened.Manifest().Items {
		if item.Name != name {
			continue
		}
		var got bytes.Buffer
		if err := opened.WriteItem(ctx, objects, ordinal, &got); err != nil {
			return fmt.Errorf("decrypt: %w", err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			return errors.New("DIFFERENT bytes")
		}
		return nil
	}
	return errors.New("MISSING")
}
