package personal

import (
	"io"
	"sort"
	"unicode/utf8"
)

const (
	maxMatch = 256      // bytes of text in one match
	behind   = 512      // bytes of text before a match that may decide about it
	ahead    = 1024     // bytes of text from the beginning of a match on that may
	core     = 32 << 10 // bytes of text that are decided at once
	slack    = 64       // what a source may append beyond a full window
	full     = behind + core + ahead

	// Patterns see smaller pieces: package regexp clears memory in proportion to the text for every match.
	patternCore   = 4 << 10
	patternBehind = 64
	patternAhead  = 2 * maxMatch
)

// source turns what is read into text.
type source interface {
	// fill appends text to w until it is full, or sets w.ended.
	fill(w *window) error
}

// window is the part of the text that is looked at.
type window struct {
	text   []byte
	base   int64 // the offset in the text of text[0]
	ended  bool  // the text ends with the window
	inLink bool  // text[0] is within a link
	runs   []run // where the text comes from; nil where text and what was read are the same
}

// run says where the text from one offset on, up to the next run, comes from.
type run struct {
	at     int64 // offset in the text
	raw    int64 // offset in what was read
	length int64 // of an atomic run: the bytes that stand for the whole of it, none for text that markup implies
	atomic bool
}

// appendLinear adds text that stands in what was read, byte for byte, at the offset raw.
func (w *window) appendLinear(text []byte, raw int64) {
	at := w.base + int64(len(w.text))
	w.text = append(w.text, text...)
	if n := len(w.runs); n > 0 && !w.runs[n-1].atomic && w.runs[n-1].raw+at-w.runs[n-1].at == raw {
		return
	}
	w.runs = append(w.runs, run{at: at, raw: raw})
}

// appendAtomic adds text for which length bytes at the offset raw stand.
func (w *window) appendAtomic(text string, raw, length int64) {
	w.runs = append(w.runs, run{at: w.base + int64(len(w.text)), raw: raw, length: length, atomic: true})
	w.text = append(w.text, text...)
}

// slide forgets what lies too far before the index limit, and returns the new index of limit.
func (w *window) slide(limit int) int {
	drop := limit - behind
	if drop <= 0 {
		return limit
	}
	w.inLink = linkAt(w.text, drop, w.inLink)
	w.text = w.text[:copy(w.text, w.text[drop:])]
	w.base += int64(drop)
	if len(w.runs) > 0 {
		w.runs = w.runs[:copy(w.runs, w.runs[w.runAt(w.base):])]
	}
	return behind
}

// runAt is the index of the run that holds the offset at.
func (w *window) runAt(at int64) int {
	return sort.Search(len(w.runs), func(i int) bool { return w.runs[i].at > at }) - 1
}

// ranges appends the bytes read that the text between the indices from and to stands for, but none before least.
func (w *window) ranges(list [][2]int64, from, to int, least int64) [][2]int64 {
	start, end := w.base+int64(from), w.base+int64(to)
	if w.runs == nil {
		return join(list, start, end)
	}
	for i := w.runAt(start); i < len(w.runs) && w.runs[i].at < end; i++ {
		r := w.runs[i]
		if r.atomic {
			if r.length > 0 && r.raw >= least {
				list = join(list, r.raw, r.raw+r.length)
			}
			continue
		}
		a, b := max(start, r.at), end
		if i+1 < len(w.runs) {
			b = min(b, w.runs[i+1].at)
		}
		list = join(list, r.raw+a-r.at, r.raw+b-r.at)
	}
	return list
}

// join appends a range, to the last one where they touch.
func join(list [][2]int64, from, to int64) [][2]int64 {
	if n := len(list); n > 0 && list[n-1][1] == from {
		list[n-1][1] = to
		return list
	}
	return append(list, [2]int64{from, to})
}

// plainText is text that is read as it stands.
type plainText struct{ r io.Reader }

func (p *plainText) fill(w *window) error {
	for len(w.text) < full {
		n, ended, err := read(p.r, w.text[len(w.text):full])
		w.text = w.text[:len(w.text)+n]
		if err != nil {
			return err
		}
		if ended {
			w.ended = true
			return nil
		}
	}
	return nil
}

// runeBefore is the character that ends at the index i, 0 at the beginning.
func runeBefore(text []byte, i int) rune {
	if i == 0 {
		return 0
	}
	r, _ := utf8.DecodeLastRune(text[:i])
	return r
}

// runeAt is the character at the index i, 0 at the end.
func runeAt(text []byte, i int) rune {
	if i >= len(text) {
		return 0
	}
	r, _ := utf8.DecodeRune(text[i:])
	return r
}
