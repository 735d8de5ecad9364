package personal

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
)

// pattern is one of the admin's own.
type pattern struct {
	name string
	re   *regexp.Regexp
}

// compile checks the admin's patterns and returns them in the order of their names.
func compile(patterns map[string]string) ([]pattern, error) {
	var compiled []pattern
	for _, name := range slices.Sorted(maps.Keys(patterns)) {
		if err := checkName(name); err != nil {
			return nil, err
		}
		tree, err := syntax.Parse(patterns[name], syntax.Perl)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", name, err)
		}
		if least(tree) == 0 {
			return nil, fmt.Errorf("pattern %q: it matches the empty text", name)
		}
		re, err := regexp.Compile("(?m:" + patterns[name] + ")")
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", name, err)
		}
		compiled = append(compiled, pattern{name, re})
	}
	return compiled, nil
}

func checkName(name string) error {
	switch name {
	case Card, IBAN, SSN:
		return fmt.Errorf("pattern %q: the name is that of a built-in detector", name)
	}
	if len(name) < 1 || len(name) > 32 {
		return fmt.Errorf("pattern %q: the name must have 1 to 32 characters", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("pattern %q: the name may hold a-z, 0-9 and - only", name)
		}
	}
	return nil
}

// least is the number of characters that a match has at least.
func least(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return least(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min * least(re.Sub[0])
	case syntax.OpConcat:
		sum := 0
		for _, sub := range re.Sub {
			sum += least(sub)
		}
		return sum
	case syntax.OpAlternate:
		smallest := least(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			smallest = min(smallest, least(sub))
		}
		return smallest
	}
	return 0
}
