package personal

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generated is how many samples of each kind are made.
const generated = 500

// generator makes samples that are the same each time.
type generator struct {
	r       *rand.Rand
	samples []sample
}

// generate makes the generated set: numbers of each kind in sentences, and numbers of other kinds.
func generate() []sample {
	g := generator{r: rand.New(rand.NewPCG(1, 2))}
	for range generated {
		g.positive(Card, g.card(), cardSentences)
		g.positive(IBAN, g.iban(), ibanSentences)
		g.positive(SSN, g.ssn(), ssnSentences)
		g.positive(SSN, strings.ReplaceAll(g.ssn(), "-", ""), plainSSNSentences)
		for _, number := range g.others() {
			g.negative(number, otherSentences)
		}
		g.negative(g.card(), orderSentences)
		g.negative(g.wrong(g.card()), cardSentences)
		g.negative(g.wrong(g.iban()), ibanSentences)
		g.negative(strings.ReplaceAll(g.ssn(), "-", ""), otherSentences)
	}
	return g.samples
}

const (
	cardSentences = "My card number is %s, thank you|%s|Please charge %s again.|Visa %s exp 04/27|Kreditkarte: %s|" +
		"Bitte von %s abbuchen|card no. %s|Bestellung 10482 bitte mit Karte %s bezahlen|<%s>|the number: %s 04/27 123"
	ibanSentences = "IBAN %s|Please refund to %s.|Meine IBAN lautet %s, danke|%s|Konto: %s BIC COBADEFF|(%s)"
	ssnSentences  = "SSN: %s|My social security number is %s.|%s|Name Doe, %s, born 1970|(%s)"
	// Nine digits alone are none.
	plainSSNSentences = "SSN: %s|My social security number is %s.|%s is my SSN|Social security no. %s"
	orderSentences    = "Order %s|order number: %s|Order no. %s|Invoice #%s|Bestellung %s|Bestellnummer: %s|Rechnung Nr. %s|" +
		"Sendungsnummer %s|Tracking number %s|Kundennummer %s|ticket %s is open"
	otherSentences = "%s|The number is %s.|Nummer: %s|see %s below|(%s)|a, %s, b"
)

func (g *generator) positive(detector, number, sentences string) {
	before, after, _ := strings.Cut(g.choose(sentences), "%s")
	want := []wanting{{detector, span{len(before), len(before) + len(number)}}}
	g.samples = append(g.samples, sample{text: before + number + after, want: want})
}

func (g *generator) negative(number, sentences string) {
	g.samples = append(g.samples, sample{text: strings.Replace(g.choose(sentences), "%s", number, 1)})
}

func (g *generator) choose(list string) string {
	items := strings.Split(list, "|")
	return items[g.r.IntN(len(items))]
}

func (g *generator) digits(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0' + byte(g.r.IntN(10))
	}
	return string(b)
}

// card makes a number of one of the issuers, in usual length and groups.
func (g *generator) card() string {
	kind := g.choose("4 16|51 16|55 16|2221 16|2720 16|34 15|37 15|6011 16|65 16|36 14|38 14|3528 16|3589 16|62 16|62 19|6759 16|5018 16")
	prefix, length, _ := strings.Cut(kind, " ")
	n := int(length[0]-'0')*10 + int(length[1]-'0')
	number := prefix + g.digits(n-1-len(prefix))
	for check := range 10 {
		if whole := fmt.Sprintf("%s%d", number, check); luhn(values(whole)) {
			number = whole
			break
		}
	}
	groups := map[int]string{14: "464", 15: "465", 16: "4444", 19: "44443"}[n]
	return g.group(number, groups)
}

func values(digits string) []byte {
	b := []byte(digits)
	for i := range b {
		b[i] -= '0'
	}
	return b
}

// group writes a number without, or with one of the usual separators.
func (g *generator) group(number, groups string) string {
	separator := g.choose("|| |-|\u00a0")
	var parts []string
	for _, size := range groups {
		if number == "" {
			break
		}
		n := min(int(size-'0'), len(number))
		parts, number = append(parts, number[:n]), number[n:]
	}
	return strings.Join(parts, separator)
}

// iban makes an account number of one of the countries.
func (g *generator) iban() string {
	country, form, _ := strings.Cut(g.choose(strings.ReplaceAll(strings.TrimSpace(countries), " ", "|")), ":")
	account := ""
	for form != "" {
		kind, count := form[0], 0
		for form = form[1:]; form != "" && digit(form[0]); form = form[1:] {
			count = count*10 + int(form[0]-'0')
		}
		for range count {
			if kind == 'a' || kind == 'c' && g.r.IntN(8) == 0 {
				account += string(rune('A' + g.r.IntN(26)))
				continue
			}
			account += g.digits(1)
		}
	}
	c := checksum{}
	for _, b := range []byte(account + country + "00") {
		c.add(b)
	}
	number := fmt.Sprintf("%s%02d%s", country, 98-c.remainder, account)
	if g.r.IntN(5) == 0 {
		number = strings.ToLower(number)
	}
	return g.group(number, "444444444")
}

// ssn makes a social security number that can be.
func (g *generator) ssn() string {
	for {
		area, group, serial := g.digits(3), g.digits(2), g.digits(4)
		if issued([]byte(area + group + serial)) {
			return area + "-" + group + "-" + serial
		}
	}
}

// wrong changes one digit.
func (g *generator) wrong(number string) string {
	b := []byte(number)
	for {
		i := 4 + g.r.IntN(len(b)-4)
		if digit(b[i]) {
			b[i] = '0' + (b[i]-'0'+1+byte(g.r.IntN(9)))%10
			return string(b)
		}
	}
}

// others are numbers that are neither.
func (g *generator) others() []string {
	return []string{
		g.digits(12), g.digits(13), g.digits(14), g.digits(15), g.digits(16), g.digits(19), // nothing says what they are
		g.group(g.digits(16), "4444"),
		"+49 " + g.digits(3) + " " + g.digits(8),
		"(" + g.digits(3) + ") " + g.digits(3) + "-" + g.digits(4),
		fmt.Sprintf("2026%02d%02d%s", 1+g.r.IntN(12), 1+g.r.IntN(28), g.digits(6)),
		"1764" + g.digits(9),
		fmt.Sprintf("%016x", g.r.Uint64()),
		fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", g.r.Uint32(), g.r.IntN(1<<16), g.r.IntN(1<<12), g.r.IntN(1<<12), g.r.Uint64N(1<<48)),
		"978-3-" + g.digits(2) + "-" + g.digits(6) + "-" + g.digits(1),
		"1Z" + g.digits(3) + "AA" + g.digits(10),
		"00340434" + g.digits(12),
		"0." + g.digits(16),
		g.digits(3) + "-" + g.digits(7) + "-" + g.digits(7),
		g.digits(3) + "-" + g.digits(3) + "-" + g.digits(4),
		fmt.Sprintf("%02d-%02d-20%s", 1+g.r.IntN(28), 1+g.r.IntN(12), g.digits(2)),
	}
}
