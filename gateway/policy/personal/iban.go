package personal

import (
	"strings"
)

// countries gives each country's basic account number as the IBAN registry does: n digits, a letters, c either, and
// how many.
const countries = "AD:n8c12 AE:n19 AL:n8c16 AT:n16 AZ:a4c20 BA:n16 BE:n12 BG:a4n6c8 BH:a4c14 BI:n23 BR:n23a1c1 " +
	"BY:c4n4c16 CH:n5c12 CR:n18 CY:n8c16 CZ:n20 DE:n18 DJ:n23 DK:n14 DO:c4n20 EE:n16 EG:n25 ES:n20 FI:n14 FK:a2n12 " +
	"FO:n14 FR:n10c11n2 GB:a4n14 GE:a2n16 GI:a4c15 GL:n14 GR:n7c16 GT:c24 HN:a4n20 HR:n17 HU:n24 IE:a4n14 IL:n19 " +
	"IQ:a4n15 IS:n22 IT:a1n10c12 JO:a4n4c18 KW:a4c22 KZ:n3c13 LB:n4c20 LC:a4c24 LI:n5c12 LT:n16 LU:n3c13 LV:a4c13 " +
	"LY:n21 MC:n10c11n2 MD:c20 ME:n18 MK:n3c10n2 MN:n16 MR:n23 MT:a4n5c18 MU:a4n19a3 NI:a4n20 NL:a4n10 NO:n11 " +
	"OM:n3c16 PK:a4c16 PL:n24 PS:a4c21 PT:n21 QA:a4c21 RO:a4c16 RS:n18 RU:n14c15 SA:n2c18 SC:a4n20a3 SD:n14 SE:n20 " +
	"SI:n15 SK:n20 SM:a1n10c12 SO:n19 ST:n21 SV:a4n20 TL:n19 TN:n20 TR:n6c16 UA:n6c19 VA:n18 VG:a4n16 XK:n16 YE:a4n4c18 "

// minAccountDigits is how many digits the account number has at least: words alone are none.
const minAccountDigits = 6

// ibanAt finds the IBAN whose check digits begin the run of digits, ISO 13616. A span with false is an IBAN but for
// its checksum, written so that it cannot be meant as anything else.
func ibanAt(text []byte, run span, done int) (span, bool) {
	start, glued, ok := countryBefore(text, run.from)
	if !ok || start < done || run.to-run.from < 2 {
		return span{}, false
	}
	form, ok := account(text[start], text[start+1])
	if !ok {
		return span{}, false
	}
	c := checksum{}
	end, digits := run.from+2, 0
	for form != "" {
		kind, count := form[0], 0
		form = form[1:]
		for form != "" && digit(form[0]) {
			count = count*10 + int(form[0]-'0')
			form = form[1:]
		}
		for range count {
			at, ok := nextOf(text, end, kind)
			if !ok {
				return span{}, false
			}
			if digit(text[at]) {
				digits++
			}
			c.add(text[at])
			end = at + 1
		}
	}
	if wordRune(runeAt(text, end)) || digits < minAccountDigits {
		return span{}, false
	}
	for _, b := range []byte{text[start], text[start+1], text[run.from], text[run.from+1]} {
		c.add(b)
	}
	upper := text[start] < 'a' && text[start+1] < 'a'
	switch {
	case c.remainder == 1:
		return span{start, end}, true
	case glued && upper:
		return span{start, end}, false
	}
	return span{}, false
}

// countryBefore finds the two letters before the check digits at i, and says whether they touch.
func countryBefore(text []byte, i int) (start int, glued, ok bool) {
	end := i
	if r := runeBefore(text, i); isSpace(r) {
		end -= len(string(r))
	}
	start = end - 2
	if start < 0 || !letter(text[start]) || !letter(text[start+1]) {
		return 0, false, false
	}
	if wordRune(runeBefore(text, start)) && !strings.EqualFold(wordBefore(text, start), "iban") {
		return 0, false, false
	}
	return start, end == i, true
}

// account is the form of a country's account numbers.
func account(a, b byte) (string, bool) {
	_, rest, ok := strings.Cut(countries, string([]byte{a &^ 0x20, b &^ 0x20, ':'}))
	if !ok {
		return "", false
	}
	form, _, _ := strings.Cut(rest, " ")
	return form, true
}

// nextOf is the index of the next character of an IBAN, which must be of the kind.
func nextOf(text []byte, i int, kind byte) (int, bool) {
	if i < len(text) && !alnum(text[i]) {
		skip, sep := separator(text, i)
		if sep == apart || sep == dotted {
			return 0, false
		}
		i += skip
	}
	if i >= len(text) {
		return 0, false
	}
	c := text[i]
	return i, digit(c) && kind != 'a' || letter(c) && kind != 'n'
}

// checksum is the remainder by 97 of what was added, ISO/IEC 7064.
type checksum struct{ remainder int }

func (c *checksum) add(b byte) {
	if digit(b) {
		c.remainder = (c.remainder*10 + int(b-'0')) % 97
		return
	}
	c.remainder = (c.remainder*100 + int(b&^0x20-'A') + 10) % 97
}
