package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. It is written with kB, MB, GB (powers of 1000), KiB, MiB, GiB or none.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	value, err := parseUnits(string(text), map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
	})
	if err != nil {
		return fmt.Errorf("%q is not a size; write it like 150MB or 64KiB", text)
	}
	*s = Size(value)
	return nil
}

// Duration is a length of time. It is written with s, m, h or d, such as 365d; 0 needs no unit.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	units := map[string]float64{
		"s": float64(time.Second), "m": float64(time.Minute), "h": float64(time.Hour), "d": 24 * float64(time.Hour),
	}
	if string(text) == "0" {
		units[""] = 1
	}
	value, err := parseUnits(string(text), units)
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it like 365d, 12h, 5m or 30s", text)
	}
	*d = Duration(value)
	return nil
}

// Std returns the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String gives days where they are whole, since that is how such keys are written.
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

func parseUnits(text string, units map[string]float64) (int64, error) {
	number := strings.TrimRight(strings.ToLower(strings.TrimSpace(text)), "abcdefghijklmnopqrstuvwxyz")
	unit := strings.ToLower(strings.TrimSpace(text))[len(number):]
	factor, known := units[unit]
	value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !known || value < 0 || value*factor >= math.MaxInt64 {
		return 0, strconv.ErrSyntax
	}
	return int64(value * factor), nil
}

// Hop is a mail server, written smtp://HOST or smtp://HOST:PORT; smtps begins with TLS.
type Hop struct {
	Host        string
	Port        uint16
	ImplicitTLS bool
}

// UnmarshalText reads a hop. An empty text names none.
func (h *Hop) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*h = Hop{}
		return nil
	}
	wrong := fmt.Errorf("%q is not a next hop; write it like smtp://mail.example.com:25", text)
	address, err := url.Parse(string(text))
	if err != nil || address.Scheme != "smtp" && address.Scheme != "smtps" || address.Hostname() == "" || address.User != nil ||
		strings.Trim(address.Path, "/") != "" || address.RawQuery != "" {
		return wrong
	}
	port := uint64(25)
	if address.Scheme == "smtps" {
		port = 465
	}
	if given := address.Port(); given != "" {
		if port, err = strconv.ParseUint(given, 10, 16); err != nil || port == 0 {
			return wrong
		}
	}
	*h = Hop{Host: address.Hostname(), Port: uint16(port), ImplicitTLS: address.Scheme == "smtps"}
	return nil
}

// IsZero reports whether no hop is named.
func (h Hop) IsZero() bool { return h == Hop{} }

func (h Hop) String() string {
	scheme := "smtp://"
	if h.ImplicitTLS {
		scheme = "smtps://"
	}
	return scheme + net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port)))
}
