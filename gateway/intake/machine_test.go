package intake_test

import "testing"

// TestForwardedSenderIsTold: another forwarder's SRS address leads back to a person, who is told of a failure.
func TestForwardedSenderIsTold(t *testing.T) {
	for _, from := range []string{
		"SRS0=4fLx=TT=customer.example=ada@forwarder.example",
		"srs0+HHH=TT=customer.example=ada@forwarder.example",
		"SRS1=Ab3d=first.example==HHH=TT=customer.example=ada@forwarder.example",
	} {
		f := newFixture(t)
		e := envelope()
		e.MailFrom = from
		if m := f.accept(t, e, greeting); m.Silence != "" {
			t.Errorf("%s is not told: %s", from, m.Silence)
		}
	}
}
