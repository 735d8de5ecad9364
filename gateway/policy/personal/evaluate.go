package personal

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

//go:embed evaluation/*.txt
var snippets embed.FS

// Report says how well the built-in detectors do.
type Report struct {
	Scores []Score
	Errors []Mistake // on the sets made by hand
}

// Score counts how one detector did on one set. A match counts only if it is exactly the bytes that it should be.
type Score struct {
	Set            string // "generated", "hand-made" or "unseen"
	Snippets       int    // in the whole set
	Detector       string
	TruePositives  int
	FalsePositives int
	Misses         int
}

// Mistake is a snippet on which a detector errs.
type Mistake struct {
	Detector string
	Missed   bool   // else found what is none
	Text     string // what was missed or found
	Snippet  string
}

// Precision is the share of the matches that are right, 1 without matches.
func (s Score) Precision() float64 { return share(s.TruePositives, s.FalsePositives) }

// Recall is the share of what there is that was found, 1 if there is nothing.
func (s Score) Recall() float64 { return share(s.TruePositives, s.Misses) }

func share(right, wrong int) float64 {
	if right+wrong == 0 {
		return 1
	}
	return float64(right) / float64(right+wrong)
}

// Evaluate runs the built-in detectors over a generated set, the same each time, and over two sets of snippets made by
// hand, in English and German. Of these, the rules were fitted to the first and not to the second, "unseen". Both hold
// what is hard on purpose, numbers above all that pass every checksum and are something else: their figures are
// worse than those for ordinary mail. The error says that the sets themselves are wrong.
func Evaluate() (Report, error) {
	var report Report
	hand, err := handMade("english", "german", "mixed")
	if err != nil {
		return report, err
	}
	unseen, err := handMade("unseen")
	if err != nil {
		return report, err
	}
	for _, set := range []struct {
		name    string
		samples []sample
	}{{"generated", generate()}, {"hand-made", hand}, {"unseen", unseen}} {
		scores, mistakes, err := judge(set.name, set.samples)
		if err != nil {
			return report, err
		}
		report.Scores = append(report.Scores, scores...)
		if set.name != "generated" {
			report.Errors = append(report.Errors, mistakes...)
		}
	}
	return report, nil
}

// String is the report as a table, and below it each mistake on the sets made by hand.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %8s %-8s %6s %6s %6s %9s %7s\n", "set", "snippets", "detector", "right", "wrong", "missed", "precision", "recall")
	for _, s := range r.Scores {
		fmt.Fprintf(&b, "%-10s %8d %-8s %6d %6d %6d %8.1f%% %6.1f%%\n", s.Set, s.Snippets, s.Detector,
			s.TruePositives, s.FalsePositives, s.Misses, 100*s.Precision(), 100*s.Recall())
	}
	if len(r.Errors) > 0 {
		b.WriteString("\nWhat is wrong on the sets made by hand:\n")
	}
	for _, e := range r.Errors {
		kind := "wrong "
		if e.Missed {
			kind = "missed"
		}
		fmt.Fprintf(&b, "%s %-4s %q in %q\n", kind, e.Detector, e.Text, e.Snippet)
	}
	return b.String()
}

// sample is a text and what should be found in it.
type sample struct {
	text string
	html bool
	want []wanting
}

// wanting is what should be found: the bytes from the first to the last.
type wanting struct {
	detector string
	span
}

// judge runs the detectors over a set.
func judge(set string, samples []sample) ([]Score, []Mistake, error) {
	d, err := New(Options{Cards: true, IBANs: true, SSNs: true})
	if err != nil {
		return nil, nil, err
	}
	scores := []Score{{Detector: Card}, {Detector: IBAN}, {Detector: SSN}}
	var mistakes []Mistake
	for _, s := range samples {
		got, err := d.findAll(s)
		if err != nil {
			return nil, nil, fmt.Errorf("evaluate: %w", err)
		}
		for i := range scores {
			score := &scores[i]
			score.Set, score.Snippets = set, len(samples)
			for _, g := range got {
				switch {
				case g.detector != score.Detector:
				case slices.Contains(s.want, g):
					score.TruePositives++
				default:
					score.FalsePositives++
					mistakes = append(mistakes, Mistake{g.detector, false, s.text[g.from:g.to], s.text})
				}
			}
			for _, w := range s.want {
				if w.detector == score.Detector && !slices.Contains(got, w) {
					score.Misses++
					mistakes = append(mistakes, Mistake{w.detector, true, s.text[w.from:w.to], s.text})
				}
			}
		}
	}
	return scores, mistakes, nil
}

// findAll lists what is found in a sample.
func (d *Detectors) findAll(s sample) ([]wanting, error) {
	var got []wanting
	find := d.Find
	if s.html {
		find = d.FindHTML
	}
	err := find(strings.NewReader(s.text), func(m Match) error {
		whole := span{int(m.Ranges[0][0]), int(m.Ranges[len(m.Ranges)-1][1])}
		got = append(got, wanting{m.Detector, whole})
		return nil
	})
	return got, err
}

// handMade reads snippets that were made by hand.
func handMade(files ...string) ([]sample, error) {
	var samples []sample
	for _, name := range files {
		f, err := snippets.Open("evaluation/" + name + ".txt")
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		text, err := io.ReadAll(f)
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if line == "" || strings.HasPrefix(line, "//") {
				continue
			}
			s, err := parseSample(line)
			if err != nil {
				return nil, fmt.Errorf("evaluate: %s.txt line %d: %w", name, i+1, err)
			}
			samples = append(samples, s)
		}
	}
	return samples, nil
}

// parseSample reads a snippet with its marks.
func parseSample(line string) (sample, error) {
	var s sample
	line, s.html = strings.CutPrefix(line, "html: ")
	line, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		return s, fmt.Errorf("unquote: %w", err)
	}
	for {
		before, rest, marked := strings.Cut(line, "[[")
		s.text += before
		if !marked {
			return s, nil
		}
		detector, rest, named := strings.Cut(rest, ":")
		text, rest, ended := strings.Cut(rest, "]]")
		if !named || !ended {
			return s, fmt.Errorf("mark %q has no name or no end", rest)
		}
		from := len(s.text)
		s.text += text
		s.want = append(s.want, wanting{detector, span{from, from + len(text)}})
		line = rest
	}
}
