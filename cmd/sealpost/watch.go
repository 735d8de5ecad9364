package main

import (
	"context"
	"io"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/alert"
	"sealpost/gateway/config"
	"sealpost/gateway/intake"
)

// alerts watches what an admin must hear of. They are mailed to the postmaster by way of the queue.
func (w *wiring) alerts(taking *intake.Intake) *alert.Watch { return alert.New(w.alertOptions(taking)) }

func (w *wiring) alertOptions(taking *intake.Intake) alert.Options {
	options := alert.Options{
		Probes: w.probes(), Claim: w.stores.meta.ClaimAlert, Logger: w.logger, Metrics: w.registry,
	}
	if w.cfg.Alerts.Mail {
		options.Mail = func(ctx context.Context, alerts []alert.Alert) error {
			route, _ := w.router.Current(config.PostmasterAddress)
			_, err := taking.Submit(ctx, route, "", func(out io.Writer) error {
				return alert.Compose(out, "sealpost@"+w.cfg.Hostname, route.ForwardTo, w.cfg.Hostname, gateway.NewPackageID(), time.Now(), alerts)
			})
			return err
		}
	}
	return options
}

func (w *wiring) probes() []alert.Probe {
	probes := []alert.Probe{
		alert.Disk(w.cfg.Data, lowSpace),
		alert.Queue(w.queue, w.cfg.Alerts.QueueAge.Std()),
	}
	if w.certificates != nil {
		probes = append(probes, alert.Certificates(w.expiries, time.Now))
	}
	if w.scanner != nil {
		probes = append(probes, alert.Scanner(w.scanner.Ping))
	}
	if w.senders != nil {
		probes = append(probes, alert.TempErrors(w.senders.TempErrors))
	}
	return probes
}

func (w *wiring) expiries() []alert.CertificateInfo {
	var list []alert.CertificateInfo
	for _, info := range w.certificates.Certificates() {
		list = append(list, alert.CertificateInfo{Name: info.Source, NotAfter: info.NotAfter})
	}
	return list
}

func (w *wiring) queue(ctx context.Context) (alert.QueueFacts, error) {
	facts, err := w.stores.meta.QueueFacts(ctx)
	if err != nil {
		return alert.QueueFacts{}, err
	}
	now, err := w.stores.meta.Now(ctx)
	return alert.QueueFacts{
		Dead: facts.Counts[gateway.Dead], Held: facts.Counts[gateway.Held], Oldest: facts.OldestPending, Now: now,
	}, err
}
