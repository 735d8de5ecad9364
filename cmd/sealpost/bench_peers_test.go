package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	peersConnections = flag.String("peers.connections", "10", "BenchmarkPeers: connections at once, several with commas")
	peersClasses     = flag.String("peers.classes", "5KiB,100KiB,10MiB,100MiB", "BenchmarkPeers: classes of mail")
	peersSystems     = flag.String("peers.systems", strings.Join([]string{plainPostfix, mimedefang, embedded, scaledOne, scaledTwo}, ","), "BenchmarkPeers: systems to compare")
	peersRounds      = flag.Int("peers.rounds", 5, "BenchmarkPeers, BenchmarkGrowth: rounds")
	peersScale       = flag.Float64("peers.scale", 1, "BenchmarkPeers, BenchmarkGrowth: a factor for the number of mails in a round")
)

// peerClass is one size of mail.
type peerClass struct {
	name       string
	size       int
	attachment bool
	count      int // mails of a round
	warm       int // mails before the first round
}

func peerClassList() []peerClass {
	return []peerClass{
		{"5KiB", 5 << 10, false, 1500, 50}, {"100KiB", 100 << 10, true, 800, 20},
		{"10MiB", 10 * mebibyte, true, 30, 10}, {"100MiB", 100 * mebibyte, true, 10, 1},
	}
}

// peerCase is what all systems do in turn.
type peerCase struct {
	peerClass
	connections int
}

func (c peerCase) String() string {
	if c.connections == 1 {
		return c.name + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", c.name, c.connections)
}

// peerCases are those that the flags ask for, and one 100 MiB mail at a time, for its memory.
func peerCases(b *testing.B) []peerCase {
	b.Helper()
	var cases []peerCase
	for _, class := range peerClassList() {
		if !slices.Contains(strings.Split(*peersClasses, ","), class.name) {
			continue
		}
		var connections []int
		for text := range strings.SplitSeq(*peersConnections, ",") {
			number, err := strconv.Atoi(text)
			if err != nil || number < 1 {
				b.Fatalf("-peers.connections: %q is no number of connections", text)
			}
			connections = append(connections, number)
		}
		class.count = max(1, int(float64(class.count)*(*peersScale)))
		for _, number := range connections {
			c := peerCase{class, number}
			c.count = max(c.count, number)
			cases = append(cases, c)
		}
		if class.name == "100MiB" && !slices.Contains(connections, 1) {
			class.count = 2
			cases = append(cases, peerCase{class, 1})
		}
	}
	return cases
}

// figure is one of the numbers that a round gives.
type figure int

const (
	accepted  figure = iota // mails/s up to the last 250
	delivered               // mails/s up to the last one at the sink
	megabytes               // MB/s (10^6 bytes of mail) up to the last 250
	latency50               // ms from the final dot to the 250
	latency99
	cpuTime // ms for each mail, of all processes of the system
	memory  // MiB, the highest PSS of all processes of the system together
	tries   // 4xx replies
	figures
)

// measured is a round, or what is told of several. shares are by the system's groups.
type measured struct {
	values      [figures]float64
	cpu, memory []float64
	group       []string
}

// round sends count mails, and waits until all are at the sink and the system rests.
func (s *peerSystem) round(b *testing.B, mail preparedMail, connections, count int) measured {
	b.Helper()
	syscall.Sync() // nobody pays for what another has left in the page cache
	before := whenQuiet(s.groups)
	watch := watchMemory(b.Context(), s.groups)
	first, given := s.sent, atomic.Int64{}
	next := func() (int, bool) {
		n := int(given.Add(1))
		return first + n, n <= count
	}
	clients := make([]sending, connections)
	var group errgroup.Group
	began := time.Now()
	for i := range clients {
		clients[i] = sending{mail: mail, next: next}
		group.Go(func() error { return clients[i].run(s.addresses[i%len(s.addresses)]) })
	}
	if err := group.Wait(); err != nil {
		b.Fatalf("%s: %v\n%s", s.name, err, lastLines(s.log()))
	}
	took := time.Since(began).Seconds()
	s.sent += count
	ctx, cancel := context.WithTimeout(b.Context(), deliverLimit)
	defer cancel()
	if err := s.sink.wait(ctx, s.sent); err != nil {
		b.Fatalf("%s: %v\n%s", s.name, err, lastLines(s.log()))
	}
	arrived := time.Since(began).Seconds()
	after := whenQuiet(s.groups)
	m := measured{memory: watch.stop()}
	m.values[accepted], m.values[delivered] = float64(count)/took, float64(count)/arrived
	m.values[megabytes] = float64(count) * float64(mail.size) / took / 1e6
	var latencies []time.Duration
	for _, c := range clients {
		latencies = append(latencies, c.latencies...)
		m.values[tries] += float64(c.deferred)
	}
	slices.Sort(latencies)
	m.values[latency50], m.values[latency99] = milliseconds(quantile(latencies, 0.5)), milliseconds(quantile(latencies, 0.99))
	for i, g := range s.groups {
		m.group = append(m.group, g.name)
		m.cpu = append(m.cpu, milliseconds(after[i]-before[i])/float64(count))
	}
	m.values[cpuTime], m.values[memory] = sum(m.cpu), sum(m.memory)
	return m
}

// check fails the run for a mail that was lost, doubled, or is not of the size that it must have.
func (s *peerSystem) check(b *testing.B, c peerCase, mail preparedMail) {
	b.Helper()
	least, most := int64(mail.size), int64(mail.size)+4096 // trace fields
	if s.cuts && c.attachment {
		least, most = 1, max(int64(mail.size)/2, 4096)
	}
	if err := s.sink.check(s.sent, least, most); err != nil {
		b.Fatalf("%s, %s: %v\n%s", s.name, c, err, lastLines(s.log()))
	}
	if s.kept != nil && c.attachment && s.kept() < s.sent {
		b.Fatalf("%s, %s: %d objects are kept of %d mails", s.name, c, s.kept(), s.sent)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile returns the smallest value that at least this share of the sorted values do not exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(share*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// medians are those of each figure over the rounds, but for the highest memory and all tries.
func medians(rounds []measured) measured {
	m := rounds[0]
	for f := range figures {
		m.values[f] = median(rounds, func(r measured) float64 { return r.values[f] })
	}
	m.cpu, m.values[tries] = slices.Clone(m.cpu), 0
	for i := range m.cpu {
		m.cpu[i] = median(rounds, func(r measured) float64 { return r.cpu[i] })
	}
	for _, r := range rounds {
		m.values[tries] += r.values[tries]
		if sum(r.memory) > sum(m.memory) {
			m.memory = r.memory
		}
	}
	m.values[memory] = sum(m.memory)
	return m
}

func median(rounds []measured, of func(measured) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// BenchmarkPeers sends the same prepared mails through each system to the same sink, in rounds in which every system
// has its turn while the others rest, and prints one table and which goals hold. Nothing of that is asserted; but a
// mail that is lost or doubled fails the run. `make bench-peers` runs it.
func BenchmarkPeers(b *testing.B) {
	binary := buildSealpost(b)
	report := newPeerReport(strings.Split(*peersSystems, ","))
	report.head(os.Stdout)
	for _, c := range peerCases(b) {
		b.Run(fmt.Sprintf("size=%s/connections=%d", c.name, c.connections), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			report.cases = append(report.cases, c)
			runPeerCase(b, c, binary, report)
		})
	}
	report.print(os.Stdout)
}

func runPeerCase(b *testing.B, c peerCase, binary string, report *peerReport) {
	b.Helper()
	// What is sealed, replaced or queued stays on the disk until the case is over.
	sent := int64(c.count*(*peersRounds)+c.warm) * int64(c.size)
	needRoom(b, (int64(len(report.systems))+1)*sent)
	var systems []*peerSystem
	for _, name := range report.systems {
		if report.left[name] != "" {
			continue
		}
		s, reason := startPeer(b, name, binary)
		if reason != "" {
			say(os.Stdout, "%s is left out: %s\n", name, reason)
			report.left[name] = reason
			continue
		}
		systems = append(systems, s)
	}
	for name, m := range runRounds(b, c, systems) {
		report.set(c, name, m)
	}
}

// runRounds gives every system its turn in each round, another one first each time, and returns what was measured by
// the systems' names.
func runRounds(b *testing.B, c peerCase, systems []*peerSystem) map[string]measured {
	b.Helper()
	mail := prepare(c.size, c.attachment)
	for _, s := range systems {
		s.round(b, mail, min(c.connections, c.warm), c.warm)
	}
	rounds := map[string][]measured{}
	for round := range *peersRounds {
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			m := s.round(b, mail, c.connections, c.count)
			say(os.Stdout, "%s, round %d, %s: %s\n", c, round+1, s.name, m)
			rounds[s.name] = append(rounds[s.name], m)
		}
	}
	results := map[string]measured{}
	for _, s := range systems {
		s.check(b, c, mail)
		results[s.name] = medians(rounds[s.name])
	}
	return results
}

func (m measured) String() string {
	return fmt.Sprintf("%s accepted/s, %s delivered/s, p50 %s ms, CPU %s ms, %s MiB", number(m.values[accepted]), number(m.values[delivered]),
		number(m.values[latency50]), number(m.values[cpuTime]), number(m.values[memory]))
}

// say prints to what cannot fail, or not so that it would matter.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// number prints three significant digits or all before the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// peerReport holds what was measured, by case and system.
type peerReport struct {
	systems []string
	left    map[string]string // why a system was left out
	cases   []peerCase
	results map[string]measured
}

func newPeerReport(systems []string) *peerReport {
	return &peerReport{systems: systems, left: map[string]string{}, results: map[string]measured{}}
}

func (r *peerReport) set(c peerCase, system string, m measured) { r.results[c.String()+" "+system] = m }

// get returns ok false for what was not measured.
func (r *peerReport) get(c peerCase, system string) (m measured, ok bool) {
	m, ok = r.results[c.String()+" "+system]
	return m, ok
}

func (r *peerReport) head(w io.Writer) {
	say(w, "%s\n", machine())
	say(w, "Clients keep their connections and send one mail after the other, without pipelining; after a 4xx they try again. Latency is from the final\n"+
		"dot to its 250. CPU is user and system time of all processes of a system, with what they do after the 250. Memory is PSS, looked at every %s.\n"+
		"Driver and sink run on the same machine and are not counted. Medians over %d rounds; memory: the highest.\n", pssInterval, *peersRounds)
	for _, name := range r.systems {
		say(w, "  %s: %s\n", name, peerDescriptions[name])
	}
}

func (r *peerReport) print(w io.Writer) {
	for _, c := range r.cases {
		say(w, "\n%s, %d mails a round\n", c, c.count)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		say(table, "system\taccepted/s\tdelivered/s\tMB/s\tp50 ms\tp99 ms\tCPU ms\tPSS MiB\t4xx\tover Postfix\tover MIMEDefang\t\n")
		for _, name := range r.systems {
			m, ok := r.get(c, name)
			if !ok {
				say(table, "%s\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t\n", name)
				continue
			}
			say(table, "%s\t", name)
			for _, v := range m.values[:tries] {
				say(table, "%s\t", number(v))
			}
			say(table, "%.0f\t", m.values[tries])
			say(table, "%s\t%s\t\n", r.over(c, m, plainPostfix), r.over(c, m, mimedefang))
		}
		_ = table.Flush()
		r.shares(w, c)
	}
	r.goals(w)
	for _, name := range r.systems {
		if reason := r.left[name]; reason != "" {
			say(w, "left out: %s: %s\n", name, reason)
		}
	}
}

// over is the ratio of mails/s, accepted and delivered, to another system's.
func (r *peerReport) over(c peerCase, m measured, other string) string {
	o, ok := r.get(c, other)
	if !ok {
		return "-"
	}
	return number(m.values[accepted]/o.values[accepted]) + ", " + number(m.values[delivered]/o.values[delivered])
}

// shares says what each part of a system takes.
func (r *peerReport) shares(w io.Writer, c peerCase) {
	for _, name := range r.systems {
		m, ok := r.get(c, name)
		if !ok || len(m.group) < 2 {
			continue
		}
		say(w, "  %s:", name)
		for i, group := range m.group {
			say(w, " %s %s ms of CPU", group, number(m.cpu[i]))
			if i < len(m.memory) {
				say(w, " and %s MiB", number(m.memory[i]))
			}
			say(w, ";")
		}
		say(w, "\n")
	}
}
