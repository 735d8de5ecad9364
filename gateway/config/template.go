package config

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/goccy/go-yaml"
)

//go:embed sealpost.yaml.tmpl
var templateText string

// Values are what `sealpost init` fills into the commented file.
type Values struct {
	Hostname, Data, Keyring string
	PostmasterForwardTo     string
	NextHop                 string
	SMTPListen              string
	PortalListen, PortalURL string
	Routes                  []RouteValues
	RecoveryKey             string
}

// RouteValues are one route of the file that `sealpost init` writes.
type RouteValues struct{ Address, ForwardTo string }

// Write writes the commented configuration file.
func Write(w io.Writer, values Values) error {
	commented, err := template.New("sealpost.yaml").Funcs(template.FuncMap{"yaml": quote}).Parse(templateText)
	if err != nil {
		return fmt.Errorf("read the configuration template: %w", err)
	}
	if err := commented.Execute(w, values); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// quote writes a value so that YAML reads it back as the same string.
func quote(value string) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}
