package intake_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"sealpost/gateway"
	"sealpost/gateway/intake"
)

// chatter is a Returner that finds nothing to tell.
type chatter struct{}

func (chatter) Return(_ context.Context, w io.Writer, _ string, _ io.ReaderAt, _ int64, _ []byte) error {
	if _, err := w.Write(make([]byte, 2*intake.InlineLimit)); err != nil {
		return err
	}
	return gateway.ErrNothingToTell
}

// TestAutomaticAnswerEndsHere: a mail to a sender that is no bounce is accepted, logged and counted, and nothing of it is kept.
func TestAutomaticAnswerEndsHere(t *testing.T) {
	f := newFixture(t, func(o *intake.Options) { o.Returner = chatter{} })
	e := envelope(route(gateway.ReturnRoute, "ada@customer.example", day))
	id, err := f.intake.Accept(t.Context(), e, f.spooled(t, greeting))
	if err != nil || id == "" {
		t.Fatalf("%q, %v", id, err)
	}
	if len(f.database.mails)+len(f.database.refusals)+len(f.objects(t)) > 0 {
		t.Errorf("%d mails, %d refusals, %d objects", len(f.database.mails), len(f.database.refusals), len(f.objects(t)))
	}
	if got := value(t, f.registry, "sealpost_intake_mails_total", "ended"); got != 1 {
		t.Errorf("%v were counted", got)
	}
	if log := f.log.String(); !strings.Contains(log, "automatic answer") || !strings.Contains(log, id) || strings.Contains(log, "ada@") {
		t.Errorf("the log: %s", log)
	}
}
