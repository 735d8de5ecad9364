package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
)

type initCommand struct {
	Dir          string   `arg:"" help:"The directory to make. Nothing in it is ever overwritten."`
	Route        []string `help:"A public address and the Email-to-Case routing address behind it. May be given again." placeholder:"PUBLIC=ROUTING"`
	Hostname     string   `help:"Our name in SMTP."`
	NextHop      string   `help:"The mail server that takes the mail that goes on." placeholder:"smtp://HOST:PORT"`
	SMTPListen   string   `help:"Where to take mail." placeholder:"HOST:PORT"`
	PortalListen string   `help:"Where the portal listens." placeholder:"HOST:PORT"`
	PortalURL    string   `help:"What Secure Links begin with." placeholder:"URL"`
	RecoveryOut  string   `help:"Where to write the private recovery key (default: DIR-recovery-private.asc, beside DIR)." type:"path" placeholder:"FILE"`
}

const (
	recoveryVariable = "SEALPOST_RECOVERY_PASSPHRASE"
	configName       = "sealpost.yaml"
	publicKeyName    = "recovery-public.asc"
)

// Run makes DIR and everything in it.
func (c *initCommand) Run(std streams) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", c.Dir, err)
	}
	if c.RecoveryOut == "" {
		c.RecoveryOut = dir + "-recovery-private.asc"
	}
	values, err := c.values(std, dir)
	if err != nil {
		return err
	}
	if err := refuseExisting(filepath.Join(dir, configName), values.Keyring, filepath.Join(dir, publicKeyName), c.RecoveryOut); err != nil {
		return err
	}
	passphrase, made, err := recoveryPassphrase(std)
	if err != nil {
		return err
	}
	if err := writeInstallation(dir, c.RecoveryOut, values, passphrase); err != nil {
		return err
	}
	return c.explain(std, dir, passphrase, made)
}

// values are taken from the flags, else asked for on a terminal, else working defaults.
func (c *initCommand) values(std streams, dir string) (config.Values, error) {
	hostname, err := os.Hostname()
	if err != nil || !strings.Contains(hostname, ".") {
		hostname = "mx.example.com"
	}
	questions := []struct {
		value              *string
		question, fallback string
	}{
		{&c.Hostname, "Our host name in SMTP", hostname},
		{&c.NextHop, "The mail server that takes the mail that goes on", "smtp://127.0.0.1:25"},
		{&c.SMTPListen, "Where to take mail", "127.0.0.1:2525"},
		{&c.PortalListen, "Where the portal listens", "127.0.0.1:8080"},
		{&c.PortalURL, "What Secure Links begin with", "http://127.0.0.1:8080"},
	}
	if len(c.Route) == 0 {
		c.Route = []string{""}
		questions = append(questions, struct {
			value              *string
			question, fallback string
		}{&c.Route[0], "Public address and routing address", "support@example.com=support@x-1a2b3c.case.salesforce.com"})
	}
	for _, q := range questions {
		if *q.value != "" {
			continue
		}
		*q.value = q.fallback
		if std.isTerminal() {
			if *q.value, err = std.ask(q.question, q.fallback); err != nil {
				return config.Values{}, fmt.Errorf("%s: %w", q.question, err)
			}
		}
	}
	values := config.Values{
		Hostname: c.Hostname, Data: filepath.Join(dir, "data"), Keyring: filepath.Join(dir, "keyring"),
		NextHop: c.NextHop, SMTPListen: c.SMTPListen, PortalListen: c.PortalListen, PortalURL: c.PortalURL,
		RecoveryKey: filepath.Join(dir, publicKeyName),
	}
	for _, route := range c.Route {
		address, forwardTo, ok := strings.Cut(route, "=")
		if !ok {
			return values, usageError{fmt.Sprintf("--route %s: write it as PUBLIC=ROUTING", route)}
		}
		values.Routes = append(values.Routes, config.RouteValues{Address: address, ForwardTo: forwardTo})
	}
	_, domain, _ := strings.Cut(values.Routes[0].Address, "@")
	values.PostmasterForwardTo = "postmaster@" + domain
	return values, nil
}

func refuseExisting(paths ...string) error {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists already, and init never overwrites; choose another directory", path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", path, err)
		}
	}
	return nil
}

// recoveryPassphrase takes the passphrase from the environment or the terminal, else makes one.
func recoveryPassphrase(std streams) (passphrase gateway.Secret, made bool, err error) {
	if os.Getenv(recoveryVariable) == "" && !std.isTerminal() {
		return gateway.NewSecret(rand.Text()), true, nil
	}
	passphrase, err = std.secret(recoveryVariable, "A passphrase for the private recovery key", true)
	return passphrase, false, err
}

// writeInstallation writes the configuration last: where it is, everything is.
func writeInstallation(dir, recoveryOut string, values config.Values, passphrase gateway.Secret) error {
	var text strings.Builder
	if err := config.Write(&text, values); err != nil {
		return err
	}
	if _, err := config.Parse(filepath.Join(dir, configName), []byte(text.String())); err != nil {
		return usageError{"these values make no working configuration:\n" + err.Error()}
	}
	for _, path := range []string{dir, values.Data} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make the directory: %w", err)
		}
	}
	keyring, err := crypto.NewKeyring(time.Now())
	if err != nil {
		return fmt.Errorf("make the keyring: %w", err)
	}
	recovery, err := crypto.GenerateRecoveryKey(time.Now())
	if err != nil {
		return fmt.Errorf("make the recovery key: %w", err)
	}
	files := []struct {
		path  string
		write func(io.Writer) error
	}{
		{values.Keyring, keyring.Encode},
		{recoveryOut, func(w io.Writer) error { return recovery.WriteArmored(w, []byte(passphrase.Reveal())) }},
		{values.RecoveryKey, recovery.Public().WriteArmored},
		{filepath.Join(values.Data, recoveryStateName), recoveryState{KeyFile: recoveryOut}.encode},
		{filepath.Join(dir, configName), func(w io.Writer) error { _, err := io.WriteString(w, text.String()); return err }},
	}
	for _, file := range files {
		if err := createFile(file.path, file.write); err != nil {
			return err
		}
	}
	return nil
}

// createFile writes a new file that only its owner may read, durably. An existing one is left alone.
func createFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (c *initCommand) explain(std streams, dir string, passphrase gateway.Secret, made bool) error {
	file := filepath.Join(dir, configName)
	text := fmt.Sprintf(`Made %s with a configuration, a keyring and the public recovery key.

The private recovery key is in %s.
It opens every package when all else is lost. Take it off this host, then run
  sealpost recovery confirm --config %[3]s

`, dir, c.RecoveryOut, file)
	if made {
		text += "Its passphrase, shown this once; keep it apart from the key:\n  " + passphrase.Reveal() + "\n\n"
	}
	text += fmt.Sprintf(`Next:
  sealpost agent add you@example.com --config %[1]s
  sealpost check --config %[1]s
  sealpost serve --config %[1]s
`, file)
	_, err := io.WriteString(std.out, text)
	return err
}
