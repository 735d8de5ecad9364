package gateway

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// The parameters of punycode for domains (RFC 3492 section 5).
const (
	punyBase, punyMin, punyMax       = 36, 1, 26
	punySkew, punyDamp, punyBias     = 38, 700, 72
	punyStart                        = 0x80
	punyDigits                       = "abcdefghijklmnopqrstuvwxyz0123456789"
	punyPrefix                       = "xn--"
	maxLabel, maxRune            int = 63, utf8.MaxRune
)

// domainSpellings returns a domain as it stands and, where they differ, with all labels in ASCII and all in Unicode. It is own code
// since this package keeps to the standard library, which shows none of its own.
func domainSpellings(domain string) []string {
	labels := strings.Split(folded(domain), ".")
	ascii, wide := slices.Clone(labels), slices.Clone(labels)
	for i, label := range labels {
		if coded, ok := strings.CutPrefix(label, punyPrefix); ok {
			if decoded, ok := punyDecode(coded); ok {
				wide[i] = decoded
			}
		} else if coded, ok := punyEncode(label); ok {
			ascii[i] = punyPrefix + coded
		}
	}
	all := []string{domain}
	for _, other := range []string{strings.Join(ascii, "."), strings.Join(wide, ".")} {
		if other != folded(domain) && !slices.Contains(all, other) {
			all = append(all, other)
		}
	}
	return all
}

// punyAdapt is RFC 3492 section 6.1.
func punyAdapt(delta, points int, first bool) int {
	if first {
		delta /= punyDamp
	} else {
		delta /= 2
	}
	delta += delta / points
	k := 0
	for ; delta > (punyBase-punyMin)*punyMax/2; k += punyBase {
		delta /= punyBase - punyMin
	}
	return k + (punyBase-punyMin+1)*delta/(delta+punySkew)
}

func punyThreshold(k, bias int) int { return min(max(k-bias, punyMin), punyMax) }

// punyDecode is RFC 3492 section 6.2.
func punyDecode(coded string) (string, bool) {
	if len(coded) > maxLabel {
		return "", false
	}
	last := strings.LastIndexByte(coded, '-')
	letters := []rune(coded[:max(last, 0)])
	n, bias, i := punyStart, punyBias, 0
	for rest := coded[last+1:]; rest != ""; {
		before, weight := i, 1
		for k := punyBase; ; k += punyBase {
			if rest == "" {
				return "", false
			}
			digit := strings.IndexByte(punyDigits, rest[0])
			if rest = rest[1:]; digit < 0 || weight > maxRune*maxLabel {
				return "", false
			}
			i += digit * weight
			t := punyThreshold(k, bias)
			if digit < t {
				break
			}
			weight *= punyBase - t
		}
		points := len(letters) + 1
		bias = punyAdapt(i-before, points, before == 0)
		n += i / points
		i %= points
		if n > maxRune {
			return "", false
		}
		letters = slices.Insert(letters, i, rune(n))
		i++
	}
	return string(letters), true
}

// punyEncode is RFC 3492 section 6.3. ok is false for a label that is ASCII.
func punyEncode(label string) (coded string, ok bool) {
	letters := []rune(label)
	var out strings.Builder
	for _, c := range letters {
		if c < punyStart {
			out.WriteRune(c)
		}
	}
	done := out.Len()
	if done == len(letters) || len(letters) > maxLabel {
		return "", false
	}
	basic := done
	if basic > 0 {
		out.WriteByte('-')
	}
	for n, bias, delta := punyStart, punyBias, 0; done < len(letters); {
		next := maxRune
		for _, c := range letters {
			if int(c) >= n {
				next = min(next, int(c))
			}
		}
		delta += (next - n) * (done + 1)
		n = next
		for _, c := range letters {
			if int(c) < n {
				delta++
			}
			if int(c) != n {
				continue
			}
			punyNumber(&out, delta, bias)
			bias = punyAdapt(delta, done+1, done == basic)
			delta = 0
			done++
		}
		delta++
		n++
	}
	return out.String(), true
}

// punyNumber writes a number of variable length.
func punyNumber(out *strings.Builder, q, bias int) {
	for k := punyBase; ; k += punyBase {
		t := punyThreshold(k, bias)
		if q < t {
			out.WriteByte(punyDigits[q])
			return
		}
		out.WriteByte(punyDigits[t+(q-t)%(punyBase-t)])
		q = (q - t) / (punyBase - t)
	}
}
