package main

import (
	"context"
	"fmt"
	"os/user"
	"strings"

	"sealpost/gateway"
	"sealpost/gateway/config"
	"sealpost/storage/meta"
)

type queueRetryCommand struct {
	configFlag
	Mail string `arg:"" help:"The ID of the mail."`
}

// Run makes the mail's dead deliveries due at once.
func (c *queueRetryCommand) Run(ctx context.Context, std streams) error {
	return steer{c.configFlag, c.Mail, gateway.EventRetry, []gateway.DeliveryState{gateway.Dead}}.
		run(ctx, std, byAdmin(), gateway.Secret{}, "due now; a running gateway takes them up within seconds")
}

type queueHoldCommand struct {
	configFlag
	Mail   string `arg:"" help:"The ID of the mail."`
	Reason string `help:"Why, for whoever finds it held." placeholder:"TEXT"`
}

// Run holds the mail's waiting deliveries.
func (c *queueHoldCommand) Run(ctx context.Context, std streams) error {
	return steer{c.configFlag, c.Mail, gateway.EventHold, []gateway.DeliveryState{gateway.Pending}}.
		run(ctx, std, byAdmin(), gateway.NewSecret(c.Reason), "held")
}

type queueReleaseCommand struct {
	configFlag
	Mail string `arg:"" help:"The ID of the mail."`
}

// Run lets the mail's held deliveries go.
func (c *queueReleaseCommand) Run(ctx context.Context, std streams) error {
	return steer{c.configFlag, c.Mail, gateway.EventRelease, []gateway.DeliveryState{gateway.Held}}.
		run(ctx, std, byAdmin(), gateway.Secret{}, "due now")
}

type queueDropCommand struct {
	configFlag
	Mail   string `arg:"" help:"The ID of the mail."`
	By     string `help:"Who you are; asked for on a terminal." placeholder:"NAME"`
	Reason string `help:"Why it is given up; asked for on a terminal." placeholder:"TEXT"`
}

// Run drops the mail's deliveries that have not arrived. Who and why is kept in the audit.
func (c *queueDropCommand) Run(ctx context.Context, std streams) error {
	for _, q := range []struct {
		value                    *string
		flag, question, fallback string
	}{{&c.By, "--by", "Who are you", loginName()}, {&c.Reason, "--reason", "Why is it given up", ""}} {
		if *q.value == "" && std.isTerminal() {
			answer, err := std.ask(q.question, q.fallback)
			if err != nil {
				return err
			}
			*q.value = answer
		}
		if strings.TrimSpace(*q.value) == "" {
			return usageError{q.flag + " is needed: a mail is given up by somebody, for a reason"}
		}
	}
	by := byAdmin()
	by.Name = gateway.NewSecret(c.By)
	return steer{c.configFlag, c.Mail, gateway.EventDrop, []gateway.DeliveryState{gateway.Pending, gateway.Held, gateway.Dead}}.
		run(ctx, std, by, gateway.NewSecret(c.Reason), "dropped; the files of the mail stay")
}

func loginName() string {
	if current, err := user.Current(); err == nil {
		return current.Username
	}
	return ""
}

// steer moves the deliveries of one mail that are in some states.
type steer struct {
	configFlag
	mail  string
	event gateway.DeliveryEvent
	from  []gateway.DeliveryState
}

func (s steer) run(ctx context.Context, std streams, by gateway.Principal, reason gateway.Secret, result string) error {
	return s.withStores(ctx, func(_ *config.Config, opened *stores) error {
		id, err := gateway.ParsePackageID(s.mail)
		if err != nil {
			return usageError{err.Error()}
		}
		moved := 0
		for _, state := range s.from {
			found, err := opened.meta.ListDeliveries(ctx, meta.DeliveryFilter{Mail: id, State: state})
			if err != nil {
				return err
			}
			for _, d := range found {
				if err := opened.meta.ApplyEvent(ctx, d.ID, s.event, by, reason); err != nil {
					return err
				}
				moved++
			}
		}
		if moved == 0 {
			return fmt.Errorf("mail %s has no delivery that is %s; sealpost queue show %[1]s says where it is", id, anyOf(s.from))
		}
		_, err = fmt.Fprintf(std.out, "%d deliveries are %s.\n", moved, result)
		return err
	})
}

func anyOf(states []gateway.DeliveryState) string {
	words := make([]string, len(states))
	for i, state := range states {
		words[i] = string(state)
	}
	return strings.Join(words, " or ")
}
