package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// goals prints, for each case that a goal names, what was measured and whether it holds. A rate holds when that of
// accepted mails does and that of delivered ones too, since a queue that only grows is no speed.
func (r *peerReport) goals(w io.Writer) {
	say(w, "\nGoals\n")
	for _, c := range r.cases {
		if c.connections == 10 {
			overPostfix := 1.5
			if c.size < mebibyte {
				overPostfix = 2
			}
			r.rateGoal(w, c, embedded, plainPostfix, overPostfix)
			r.lessGoal(w, c, plainPostfix, latency50, "p50 of accept latency, ms")
			r.lessGoal(w, c, plainPostfix, cpuTime, "CPU for each mail, ms")
			r.rateGoal(w, c, embedded, mimedefang, 5)
			r.rateGoal(w, c, scaledTwo, embedded, 0.6)
		}
		if c.connections == 10 && c.name == "10MiB" || c.connections == 1 && c.name == "100MiB" {
			r.lessGoal(w, c, mimedefang, memory, "peak PSS, MiB")
		}
	}
}

func (r *peerReport) rateGoal(w io.Writer, c peerCase, system, other string, least float64) {
	m, ok := r.get(c, system)
	o, also := r.get(c, other)
	if !ok || !also {
		say(w, "  not measured  %s: %s over %s: mails/s at least %s times\n", c, system, other, number(least))
		return
	}
	in, out := m.values[accepted]/o.values[accepted], m.values[delivered]/o.values[delivered]
	say(w, "  %s  %s: %s over %s: mails/s at least %s times: accepted %s, delivered %s\n", verdictOf(min(in, out) >= least), c, system, other,
		number(least), number(in), number(out))
}

// lessGoal is that the embedded Sealpost takes less than another system.
func (r *peerReport) lessGoal(w io.Writer, c peerCase, other string, f figure, what string) {
	m, ok := r.get(c, embedded)
	o, also := r.get(c, other)
	if !ok || !also {
		say(w, "  not measured  %s: %s below that of %s\n", c, what, other)
		return
	}
	say(w, "  %s  %s: %s below that of %s: %s and %s\n", verdictOf(m.values[f] < o.values[f]), c, what, other, number(m.values[f]), number(o.values[f]))
}

func verdictOf(holds bool) string {
	if holds {
		return "holds "
	}
	return "missed"
}

// TestPeerGoals: what is printed of a goal is what was measured.
func TestPeerGoals(t *testing.T) {
	r := newPeerReport([]string{plainPostfix, mimedefang, embedded})
	c := peerCase{peerClass{name: "5KiB", size: 5 << 10, count: 10}, 10}
	r.cases = []peerCase{c}
	r.set(c, plainPostfix, measured{values: [figures]float64{accepted: 100, delivered: 100, latency50: 5, cpuTime: 1}})
	r.set(c, mimedefang, measured{values: [figures]float64{accepted: 50, delivered: 50}, group: []string{"A", "B"}, cpu: []float64{1, 2}})
	r.set(c, embedded, measured{values: [figures]float64{accepted: 300, delivered: 190, latency50: 4, cpuTime: 2}})
	var b bytes.Buffer
	r.goals(&b)
	for _, want := range []string{
		"missed  5KiB, 10 connections: sealpost over postfix: mails/s at least 2.00 times: accepted 3.00, delivered 1.90",
		"holds   5KiB, 10 connections: p50", "missed  5KiB, 10 connections: CPU", "missed  5KiB, 10 connections: sealpost over mimedefang",
		"not measured  5KiB, 10 connections: sealpost-pg-s3-2 over sealpost",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the goals lack %q:\n%s", want, b.String())
		}
	}
	m := medians([]measured{{values: [figures]float64{accepted: 1, tries: 2}, memory: []float64{1, 2}}, {values: [figures]float64{accepted: 9}, memory: []float64{5, 1}},
		{values: [figures]float64{accepted: 2, tries: 1}, memory: []float64{1, 1}}})
	if m.values[accepted] != 2 || m.values[tries] != 3 || m.values[memory] != 6 {
		t.Errorf("medians %v", m.values)
	}
	sorted := []time.Duration{1, 2, 3, 4}
	if quantile(sorted, 0.5) != 2 || quantile(sorted, 0.99) != 4 || quantile(nil, 0.5) != 0 {
		t.Error("wrong quantiles")
	}
}

// TestPeerSinkCounts: the driver's mails arrive at the sink as they were sent, each known by its number; one that is
// lost, doubled, unknown or of another size is noticed.
func TestPeerSinkCounts(t *testing.T) {
	sink, mail := startPeerSink(t), prepare(200<<10, true)
	send := func(numbers ...int) {
		t.Helper()
		s := sending{mail: mail, next: func() (int, bool) {
			if len(numbers) == 0 {
				return 0, false
			}
			number := numbers[0]
			numbers = numbers[1:]
			return number, true
		}}
		want := len(numbers)
		if err := s.run(sink.address); err != nil || len(s.latencies) != want || s.deferred != 0 {
			t.Fatalf("%v; %d of %d mails sent, %d deferred", err, len(s.latencies), want, s.deferred)
		}
	}
	exact := int64(mail.size)
	for _, c := range []struct {
		name        string
		send        []int
		mails       int
		least, most int64
		wrong       string
	}{
		{"all", []int{1, 2, 3}, 3, exact, exact, ""},
		{"lost", nil, 4, exact, exact, "1 are lost"},
		{"other size", nil, 3, exact + 1, exact + 2, "3 not of"},
		{"unknown", []int{5}, 3, exact, exact, "1 others came"},
		{"doubled", []int{4, 2}, 5, exact, exact, "1 doubled"},
	} {
		send(c.send...)
		err := sink.check(c.mails, c.least, c.most)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := sink.wait(ctx, 5); err != nil {
		t.Errorf("wait for what has come: %v", err)
	}
	if err := sink.wait(ctx, 6); err == nil {
		t.Error("waiting for a mail that does not come gave no error")
	}
}
