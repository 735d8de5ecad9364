package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"sealpost/crypto"
	"sealpost/gateway"
)

type openCommand struct {
	Link     string `arg:"" help:"The Secure Link; - reads it from standard input, where no list of processes shows it."`
	Out      string `help:"The directory for the files; it is made if missing. Without it the files are only listed." type:"path" placeholder:"DIR"`
	Agent    string `help:"The agent's mail address." env:"SEALPOST_AGENT" placeholder:"ADDRESS"`
	Infected bool   `help:"Take the files although a virus scanner found something in their mail."`
	Portal   string `help:"Your portal. A link to any other is refused, so that an imitated notice gets no password." env:"SEALPOST_PORTAL" placeholder:"URL"`
}

// Run opens the package and saves its files.
func (c *openCommand) Run(ctx context.Context, std streams) (err error) {
	link, err := c.link(std)
	if err != nil {
		return err
	}
	if c.Agent == "" {
		return usageError{"name the agent with --agent ADDRESS or SEALPOST_AGENT"}
	}
	if c.Portal != "" && strings.TrimSuffix(c.Portal, "/") != link.Portal {
		return usageError{fmt.Sprintf("the link leads to %s, not to your portal %s", link.Portal, c.Portal)}
	}
	password, err := std.secret(passwordVariable, "The password of "+c.Agent+" at "+link.Portal, false)
	if err != nil {
		return err
	}
	client, err := logIn(ctx, link.Portal, c.Agent, password)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	defer func() { err = errors.Join(err, client.logOut(context.WithoutCancel(ctx))) }()
	opened, objects, err := client.open(ctx, link)
	if err != nil {
		return fmt.Errorf("open the package: %w", err)
	}
	if err := warn(std.err, objects.scan, c.Infected); err != nil {
		return err
	}
	if c.Out == "" {
		return list(std.out, opened.Manifest())
	}
	return saveItems(ctx, std, opened, objects, c.Out)
}

func (c *openCommand) link(std streams) (crypto.Link, error) {
	text := c.Link
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(std.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return crypto.Link{}, fmt.Errorf("read the link: %w", err)
		}
		text = line
	}
	link, err := crypto.ParseLink(strings.TrimSpace(text))
	if err != nil {
		return link, usageError{err.Error()}
	}
	return link, nil
}

// warn tells what a virus scanner said of the mail. It is an error that it found something, unless that is
// accepted. A verdict that is not known here counts as a mail that nobody scanned.
func warn(w io.Writer, scan gateway.Scan, accepted bool) error {
	found := "the virus scanner found something in this mail"
	if scan.Signature != "" {
		found = "the virus scanner found " + printable(scan.Signature) + " in this mail"
	}
	switch {
	case scan.Verdict == "", scan.Verdict == gateway.ScanClean:
		return nil
	case scan.Verdict == gateway.ScanInfected && !accepted:
		return fmt.Errorf("%s; to take its files all the same, add --infected", found)
	case scan.Verdict == gateway.ScanInfected:
		_, err := fmt.Fprintf(w, "sealpost: warning: %s; its files can harm the computer that opens them\n", found)
		return err
	}
	_, err := fmt.Fprintln(w, "sealpost: warning: no virus scanner has looked at these files")
	return err
}

// list prints what a package holds.
func list(w io.Writer, manifest crypto.Manifest) error {
	for _, item := range manifest.Items {
		if _, err := fmt.Fprintf(w, "%10s  %s\n", humanSize(item.Size), safeName(item.Name)); err != nil {
			return err
		}
	}
	return nil
}

// saveItems saves each item under dir. A file that cannot be read to its end and verified is not saved.
func saveItems(ctx context.Context, std streams, opened *crypto.Opened, from crypto.Getter, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	for ordinal, item := range opened.Manifest().Items {
		name := safeName(item.Name)
		bar := newProgress(std, name, item.Size)
		path, err := saveItem(ctx, opened, from, ordinal, dir, bar)
		bar.end()
		if err != nil {
			return fmt.Errorf("save file %d of the package: %w", ordinal+1, err)
		}
		if _, err := fmt.Fprintf(std.out, "%10s  %s\n", humanSize(item.Size), path); err != nil {
			return err
		}
	}
	return nil
}

// saveItem writes to a temporary name, and gives the file its own name once everything is verified.
func saveItem(ctx context.Context, opened *crypto.Opened, from crypto.Getter, ordinal int, dir string, bar *progress) (path string, err error) {
	f, err := os.CreateTemp(dir, ".sealpost-*")
	if err != nil {
		return "", fmt.Errorf("make a file: %w", err)
	}
	defer func() {
		err = errors.Join(err, os.Remove(f.Name()))
	}()
	out := bufio.NewWriterSize(io.MultiWriter(f, bar), 256<<10)
	err = opened.WriteItem(ctx, from, ordinal, out)
	if err = errors.Join(err, out.Flush(), f.Close()); err != nil {
		return "", err
	}
	return linkNew(f.Name(), dir, safeName(opened.Manifest().Items[ordinal].Name))
}

// humanSize writes a number of bytes for people.
func humanSize(size int64) string {
	const unit = 1000
	if size < unit {
		return fmt.Sprintf("%d B", size)
	}
	value, prefix := float64(size)/unit, 0
	for value >= unit {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTPE"[prefix])
}
