package personal

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	labelWords = 6  // how many words before a number are looked at
	labelBytes = 96 // and how far back at most
	afterWords = 4  // how many words after it
	listed     = 10 // digits: a number as long as this is one of a list under the same label
)

// labelling says what the words before a number call it.
type labelling int

const (
	unlabelled labelling = iota
	wanted               // what the detector looks for
	foreign              // something else: an order, an invoice, a parcel
)

// labelOf reads the words before i, the nearest first, until one says what the number is. A sentence, a paragraph or
// another number with words of its own between ends the search.
func labelOf(text []byte, i int, isWanted func(string) bool) labelling {
	weak := false
	undecided := func() labelling {
		if weak {
			return foreign
		}
		return unlabelled
	}
	least := max(0, i-labelBytes)
	for words := 0; words < labelWords; {
		gap := gapBefore(text, i, least)
		weak = weak || gap.number
		if gap.from <= least || gap.paragraph {
			return undecided()
		}
		word := wordBefore(text, gap.from)
		i = gap.from - len(word)
		if isNumber(word) {
			if words > 0 || len(word) < listed {
				return undecided()
			}
			continue
		}
		word = strings.ToLower(word)
		abbreviated := isNumberWord(word)
		switch {
		case gap.sentence && !abbreviated && !isAbbreviation(word):
			return undecided()
		case isForeignWord(word):
			return foreign
		case isWanted(word):
			return wanted
		}
		weak = weak || abbreviated
		words++
	}
	return undecided()
}

// gap is what stands between two words.
type gap struct {
	from      int
	number    bool // a # stands in it
	sentence  bool // it ends a sentence
	paragraph bool // it ends a paragraph, other than one that ends in a colon
}

// gapBefore reads back from i to the end of the word before.
func gapBefore(text []byte, i, least int) gap {
	g := gap{from: i}
	lines, nearest := 0, true
	for g.from > least {
		r, n := utf8.DecodeLastRune(text[:g.from])
		if wordRune(r) {
			break
		}
		switch r {
		case '#':
			g.number = true
		case '.', '!', '?', ';':
			next := runeAt(text, g.from)
			g.sentence = g.sentence || unicode.IsSpace(next) || r == ';'
		case '\n':
			lines++
		case ':':
			if nearest || lines > 0 {
				lines = -maxSeparator
			}
		}
		nearest = nearest && unicode.IsSpace(r)
		g.from -= n
	}
	g.paragraph = lines > 1
	return g
}

// wordBefore is the word that ends at i, as it stands.
func wordBefore(text []byte, i int) string {
	start := i
	for start > 0 && i-start < labelBytes {
		r, n := utf8.DecodeLastRune(text[:start])
		if !wordRune(r) {
			break
		}
		start -= n
	}
	return string(text[start:i])
}

// followedBy says that one of the few words after i, in the same sentence, is wanted.
func followedBy(text []byte, i int, isWanted func(string) bool) bool {
	end := min(len(text), i+labelBytes)
	for words := 0; words < afterWords && i < end; {
		r, n := utf8.DecodeRune(text[i:])
		if !wordRune(r) {
			if r == '\n' || r == ';' || r == '.' && unicode.IsSpace(runeAt(text, i+n)) {
				return false
			}
			i += n
			continue
		}
		start := i
		for i < len(text) && wordRune(runeAt(text, i)) && i-start < labelBytes {
			_, n := utf8.DecodeRune(text[i:])
			i += n
		}
		word := strings.ToLower(string(text[start:i]))
		if isNumber(word) {
			return false
		}
		if isWanted(word) {
			return true
		}
		words++
	}
	return false
}

// calledForeign says that the words after i say what the number is, and that it is something else: "is my order number".
func calledForeign(text []byte, i int) bool {
	words := 0
	said := false
	return followedBy(text, i, func(word string) bool {
		words++
		said = said || words == 1 && (word == "is" || word == "ist")
		return said && isForeignWord(word)
	})
}

func isNumber(word string) bool {
	return strings.Trim(word, "0123456789") == ""
}

// isCardWord tells the words, in lower case, that call a number a payment card's.
func isCardWord(word string) bool {
	word = strings.ToLower(word)
	switch word {
	case "amex", "american", "cc", "ccn", "pan", "master", "discover", "jcb", "charge", "charged", "debit", "maestro":
		return true
	}
	for _, part := range []string{"card", "karte", "visa", "credit", "kredit", "unionpay", "diners"} {
		if strings.Contains(word, part) {
			return true
		}
	}
	return false
}

// isSSNWord tells those that call it a social security number.
func isSSNWord(word string) bool {
	word = strings.ToLower(word)
	switch word {
	case "ssn", "ssns", "ss", "social", "socials":
		return true
	}
	return strings.HasPrefix(word, "sozialversicherung")
}

// isNumberWord tells those that make a number out of what the word before them says.
func isNumberWord(word string) bool {
	switch word {
	case "no", "nos", "nr", "nrn", "num", "№":
		return true
	}
	return false
}

// isAbbreviation tells the words after which a full stop ends no sentence.
func isAbbreviation(word string) bool {
	switch word {
	case "tel", "ref", "inv", "fax":
		return true
	}
	return strings.HasSuffix(word, "nr")
}

// isForeignWord tells those that call a number something else.
func isForeignWord(word string) bool {
	switch word {
	case "order", "orders", "ordernumber", "orderid", "po", "rma", "case", "ref", "refs", "id", "ids", "ean", "gtin", "isbn", "imei",
		"iccid", "sku", "tel", "fax", "mobil", "mobile", "phone", "dhl", "ups", "fedex", "dpd", "hermes", "gls", "inv", "barcode",
		"timestamp", "token", "hash", "uuid", "guid", "iban", "konto", "meter", "vin", "mandat", "part", "ndc":
		return true
	}
	for _, start := range []string{
		"invoice", "tracking", "bestell", "rechnung", "sendung", "auftrag", "kunden", "vorgang", "ticket", "serien", "serial",
		"parcel", "paket", "shipment", "consignment", "referen", "customer", "transa", "artikel", "telefon", "vertrag",
		"contract", "booking", "buchung", "reserv", "confirm", "claim", "schaden", "liefer", "session", "policy", "police", "mitglied", "member", "zähler", "handy", "order", "gutschein", "voucher", "coupon", "license", "lizenz",
	} {
		if strings.HasPrefix(word, start) {
			return true
		}
	}
	for _, end := range []string{"bestellung", "rechnung", "zeichen", "nummer", "code"} {
		if strings.HasSuffix(word, end) && word != "nummer" && !isCardWord(word) && !isSSNWord(word) {
			return true
		}
	}
	return false
}

// codeWord tells a word that the digits after it, one space on, continue: the beginning of an IBAN, a hex number.
func codeWord(word string) bool {
	if len(word) == 4 && letter(word[0]) && letter(word[1]) && digit(word[2]) && digit(word[3]) {
		return true
	}
	return hexWord(word)
}

// hexWord tells a piece of a hex dump that cannot be a decimal number.
func hexWord(word string) bool {
	digits := strings.Trim(strings.ToLower(word), "abcdef")
	return len(word) >= 4 && len(word)%2 == 0 && digits != "" && !isNumber(word) &&
		strings.Trim(strings.ToLower(word), "0123456789abcdef") == ""
}
