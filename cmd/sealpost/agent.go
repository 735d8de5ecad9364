package main

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"text/tabwriter"
	"time"

	"sealpost/crypto"
	"sealpost/gateway"
	"sealpost/gateway/config"
)

const passwordVariable = "SEALPOST_PASSWORD" //nolint:gosec // the name of a variable, not a password

// minPassword is the least length of an agent's password (NIST SP 800-63B section 3.1.1.2).
const minPassword = 8

type agentCommand struct {
	Add      agentAddCommand      `cmd:"" help:"Add an agent. The password comes from SEALPOST_PASSWORD or the terminal."`
	List     agentListCommand     `cmd:"" help:"List the agents."`
	Password agentPasswordCommand `cmd:"" help:"Set an agent's password; ends the agent's sessions."`
	Remove   agentRemoveCommand   `cmd:"" help:"Remove an agent; ends the agent's sessions."`
}

// byAdmin is who acts at the command line.
func byAdmin() gateway.Principal { return gateway.Principal{Kind: gateway.PrincipalAdmin} }

type configFlag struct {
	Config string `help:"The configuration file." required:"" type:"path" placeholder:"FILE"`
}

// withStores opens what the configuration names, for the time of use.
func (f configFlag) withStores(ctx context.Context, use func(*config.Config, *stores) error) (err error) {
	cfg, err := config.Load(f.Config)
	if err != nil {
		return err
	}
	opened, err := openStores(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	return use(cfg, opened)
}

type agentAddCommand struct {
	configFlag
	Address string `arg:"" help:"The agent's mail address."`
}

// Run adds the agent.
func (c *agentAddCommand) Run(ctx context.Context, std streams) error {
	if parsed, err := mail.ParseAddress(c.Address); err != nil || parsed.Address != c.Address {
		return usageError{fmt.Sprintf("%q is not a mail address", c.Address)}
	}
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		hash, err := newPasswordHash(ctx, std)
		if err != nil {
			return err
		}
		if _, err := s.meta.AddAgent(ctx, c.Address, hash, byAdmin()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "Added %s.\n", c.Address)
		return err
	})
}

func newPasswordHash(ctx context.Context, std streams) (gateway.Secret, error) {
	password, err := std.secret(passwordVariable, "The agent's password", true)
	if err != nil {
		return gateway.Secret{}, err
	}
	if len([]rune(password.Reveal())) < minPassword {
		return gateway.Secret{}, usageError{fmt.Sprintf("the password needs at least %d characters", minPassword)}
	}
	hash, err := crypto.NewPasswords().Hash(ctx, password.Reveal())
	if err != nil {
		return gateway.Secret{}, fmt.Errorf("hash the password: %w", err)
	}
	return gateway.NewSecret(hash), nil
}

type agentListCommand struct{ configFlag }

// Run lists the agents.
func (c *agentListCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		agents, err := s.meta.ListAgents(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
		for _, agent := range agents {
			if _, err := fmt.Fprintf(table, "%s\tadded %s\n", agent.Address, agent.Created.Format(time.DateOnly)); err != nil {
				return err
			}
		}
		return table.Flush()
	})
}

type agentPasswordCommand struct {
	configFlag
	Address string `arg:"" help:"The agent's mail address."`
}

// Run sets the password.
func (c *agentPasswordCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		agent, err := s.meta.AgentByAddress(ctx, c.Address)
		if err != nil {
			return err
		}
		hash, err := newPasswordHash(ctx, std)
		if err != nil {
			return err
		}
		if err := s.meta.SetAgentPassword(ctx, agent.ID, hash, byAdmin()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "Set the password of %s; earlier sessions have ended.\n", c.Address)
		return err
	})
}

type agentRemoveCommand struct {
	configFlag
	Address string `arg:"" help:"The agent's mail address."`
}

// Run removes the agent.
func (c *agentRemoveCommand) Run(ctx context.Context, std streams) error {
	return c.withStores(ctx, func(_ *config.Config, s *stores) error {
		agent, err := s.meta.AgentByAddress(ctx, c.Address)
		if err != nil {
			return err
		}
		if err := s.meta.RemoveAgent(ctx, agent.ID, byAdmin()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "Removed %s; its sessions have ended.\n", c.Address)
		return err
	})
}
