package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// progress draws a bar on a terminal for what is written to it; elsewhere it draws nothing.
type progress struct {
	out   *os.File // nil: draw nothing
	name  string
	total int64
	done  int64
	began time.Time
	drawn time.Time
}

func newProgress(std streams, name string, total int64) *progress {
	p := &progress{name: name, total: total, began: time.Now()}
	if out, ok := std.err.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		p.out = out
	}
	return p
}

// Write counts.
func (p *progress) Write(data []byte) (int, error) {
	p.done += int64(len(data))
	if p.out != nil && time.Since(p.drawn) > 100*time.Millisecond {
		p.drawn = time.Now()
		p.draw()
	}
	return len(data), nil
}

func (p *progress) draw() {
	const width = 24
	full := width
	if p.total > 0 {
		full = int(min(p.done, p.total) * width / p.total)
	}
	speed := float64(p.done) / max(time.Since(p.began).Seconds(), 0.001)
	name := p.name
	for utf8.RuneCountInString(name) > 30 {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	_, _ = fmt.Fprintf(p.out, "\r\x1b[K%-30s [%s%s] %s of %s, %s/s", name, strings.Repeat("=", full),
		strings.Repeat(" ", width-full), humanSize(p.done), humanSize(p.total), humanSize(int64(speed)))
}

// end removes the bar.
func (p *progress) end() {
	if p.out != nil {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}
