package intake

import (
	"context"
	"fmt"
	"io"

	"sealpost/gateway"
)

// Submit commits a small mail of our own, as it is, with one delivery. It returns the mail's ID.
func (in *Intake) Submit(ctx context.Context, route gateway.Route, mailFrom string, write func(io.Writer) error) (string, error) {
	started, err := in.store.Now(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the database's clock: %w", err)
	}
	key, err := in.store.QueueKey(ctx, started)
	if err != nil {
		return "", fmt.Errorf("get the queue key: %w", err)
	}
	id := gateway.NewPackageID()
	queued, err := in.copies.Seal(ctx, id, started, key, mailFrom, write)
	if err != nil {
		return "", fmt.Errorf("encrypt a mail of our own: %w", err)
	}
	err = in.store.CommitMail(ctx, gateway.AcceptedMail{
		ID: id, Started: started, Envelope: gateway.Envelope{MailFrom: mailFrom, Received: started}, Silence: "our own mail",
		Copy: queued, Deliveries: []gateway.NewDelivery{{Route: route}},
	})
	if err != nil {
		return "", fmt.Errorf("commit a mail of our own: %w", err)
	}
	return id.String(), nil
}
