package relay

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"sealpost/gateway"
)

var (
	errAuthPlain   = errors.New("the next hop offers no TLS, and a password is not sent in plaintext")
	errAuthMissing = errors.New("the next hop offers neither AUTH PLAIN nor AUTH LOGIN")
)

// authenticate logs in where the hop has a user (RFC 4954), under TLS or on the machine itself only.
func (s *session) authenticate(hop gateway.NextHop) error {
	if hop.User == "" {
		return nil
	}
	if s.tls == "" && !s.loopback() {
		return &stageError{stageAuth, errAuthPlain}
	}
	offered := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	var client sasl.Client
	switch {
	case slices.Contains(offered, sasl.Plain):
		client = sasl.NewPlainClient("", hop.User, hop.Password.Reveal())
	case slices.Contains(offered, sasl.Login):
		client = sasl.NewLoginClient(hop.User, hop.Password.Reveal())
	default:
		return &stageError{stageAuth, errAuthMissing}
	}
	mechanism, initial, err := client.Start()
	if err != nil {
		return &stageError{stageAuth, err}
	}
	line := "AUTH " + mechanism
	if initial != nil {
		line += " " + encode(initial)
	}
	return s.converse(client, line)
}

// converse sends line and answers the challenges that follow. There are few, so that a server cannot go on for ever.
func (s *session) converse(client sasl.Client, line string) error {
	for range 4 {
		text, err := s.command(stageAuth, s.timeouts.Hello, 0, line)
		if err != nil {
			return err
		}
		switch s.code / 100 {
		case 2:
			return nil
		case 3:
		default:
			return &stageError{stageAuth, &textproto.Error{Code: s.code, Msg: text}}
		}
		challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil {
			return &stageError{stageAuth, errors.New("the next hop's AUTH challenge cannot be read")}
		}
		answer, err := client.Next(challenge)
		if err != nil {
			return &stageError{stageAuth, err}
		}
		line = encode(answer)
	}
	return &stageError{stageAuth, errors.New("the next hop's AUTH dialogue does not end")}
}

// encode writes a SASL response; an empty one is "=" only as an initial response, which ours never are.
func encode(response []byte) string { return base64.StdEncoding.EncodeToString(response) }

func (s *session) loopback() bool {
	peer, err := netip.ParseAddrPort(s.conn.RemoteAddr().String())
	return err == nil && peer.Addr().Unmap().IsLoopback()
}
