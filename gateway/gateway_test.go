package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sealpost/gateway"
)

// TestSecretNeverPrints tries every way a value usually gets into a log or a page.
func TestSecretNeverPrints(t *testing.T) {
	const value = "MARKER-4711"
	secret := gateway.NewSecret(value)
	nested := struct {
		Secret  gateway.Secret
		Pointer *gateway.Secret
	}{secret, &secret}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		fmt.Fprintf(&out, verb+"\n", secret, secret)
		fmt.Fprintf(&out, verb+"\n", nested, nested)
	}
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("secret", "secret", secret, "nested", nested, "error", fmt.Errorf("with %v", secret))
	slog.New(slog.NewTextHandler(&out, nil)).Info("secret", "secret", secret, "nested", nested)
	encoded, err := json.Marshal(nested)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	if strings.Contains(out.String(), value) || strings.Contains(out.String(), fmt.Sprintf("%x", value)) {
		t.Errorf("the value was printed:\n%s", out.String())
	}
	if secret.Reveal() != value || !secret.Equal(gateway.NewSecret(value)) || secret.Equal(gateway.NewSecret("other")) {
		t.Error("Reveal or Equal is wrong")
	}
}

func TestErrorKeepsTheCauseFromOutsiders(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.1: refused")
	err := fmt.Errorf("accept the mail: %w", gateway.Errorf(gateway.CodeUnavailable, cause, "try again later"))
	if got := gateway.ErrorCode(err); got != gateway.CodeUnavailable {
		t.Errorf("code %q", got)
	}
	if got := gateway.ErrorMessage(err); got != "try again later" {
		t.Errorf("message %q", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if gateway.ErrorCode(cause) != gateway.CodeInternal || gateway.ErrorMessage(cause) != "internal error" {
		t.Error("a foreign error tells more than that it is internal")
	}
	if gateway.ErrorCode(nil) != "" {
		t.Error("nil has a code")
	}
}

func TestPackageIDHasOneSpelling(t *testing.T) {
	id := gateway.NewPackageID()
	back, err := gateway.ParsePackageID(id.String())
	if err != nil || back != id {
		t.Errorf("%v came back as %v (%v)", id, back, err)
	}
	for _, wrong := range []string{"", "00", strings.Repeat("g", 32), strings.Repeat("A", 32), strings.Repeat("0", 33)} {
		if _, err := gateway.ParsePackageID(wrong); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
}

// TestDeliveryStates holds the state machine against the table of the design.
func TestDeliveryStates(t *testing.T) {
	const design = `
		pending leased sending, pending hold held, pending drop dropped,
		sending accepted sent, sending deferred pending, sending rejected dead, sending gave_up dead,
		held release pending, held drop dropped,
		sent case_found confirmed, sent window_over unconfirmed, sent replay pending,
		dead retry pending, dead drop dropped`
	want := map[string]string{}
	for line := range strings.SplitSeq(design, ",") {
		words := strings.Fields(line)
		want[words[0]+" "+words[1]] = words[2]
	}
	states := []gateway.DeliveryState{gateway.Pending, gateway.Sending, gateway.Held, gateway.Sent,
		gateway.Confirmed, gateway.Unconfirmed, gateway.Dead, gateway.Dropped}
	events := []gateway.DeliveryEvent{gateway.EventLeased, gateway.EventAccepted, gateway.EventDeferred,
		gateway.EventRejected, gateway.EventGaveUp, gateway.EventHold, gateway.EventRelease, gateway.EventDrop,
		gateway.EventCaseFound, gateway.EventWindowOver, gateway.EventReplay, gateway.EventRetry}
	for _, state := range states {
		for _, event := range events {
			next, err := state.Next(event)
			expected, allowed := want[string(state)+" "+string(event)]
			if allowed != (err == nil) || allowed && string(next) != expected || !allowed && next != state {
				t.Errorf("%s on %s: got %s (%v), want %q", state, event, next, err, expected)
			}
		}
		if end := len(state.Events()) == 0; end && state.KeepsCopy(true) {
			t.Errorf("%s is an end and keeps the copy", state)
		}
	}
	if gateway.Sent.KeepsCopy(false) || !gateway.Sent.KeepsCopy(true) || !gateway.Dead.KeepsCopy(false) {
		t.Error("a copy is kept or erased at the wrong time")
	}
}
