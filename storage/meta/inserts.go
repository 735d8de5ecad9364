package meta

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// inserts are the statements that PostgreSQL runs once for many rows, by the one that inserts a row: each parameter
// has become an array, with an element for each row.
type inserts map[string]manyRows

type manyRows struct {
	query string
	kinds string // of the parameters: see array
}

// mergedInserts returns the statements that mails and attempts are made of.
func mergedInserts() inserts {
	all := inserts{}
	for query, kinds := range map[string]string{
		qInsertPackage:     "tttiibbttt",
		qInsertItem:        "tiii",
		qInsertObject:      "ttiii",
		qInsertPlacement:   "tittti",
		qInsertMail:        "tiibbbiiitbbtbbttittttttitt",
		qInsertAddress:     "ttibb",
		qInsertDelivery:    "tttttibtbbt",
		qInsertFingerprint: "tbit",
		qInsertAttempt:     "tiiibtibt",
	} {
		all[query] = manyRows{overRows(query, kinds), kinds}
	}
	all[qEndLease] = manyRows{qEndLeases, "ttiibiiitt"}
	return all
}

// overRows makes of INSERT ... VALUES ($1, ...) one that inserts a row for each element of its parameters.
func overRows(query, kinds string) string {
	head, values, _ := strings.Cut(query, "VALUES (")
	var arrays, names []string
	for i, kind := range kinds {
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+1, map[rune]string{'t': "text", 'i': "bigint", 'b': "bytea"}[kind]))
		names = append(names, fmt.Sprintf("p%d", i+1))
	}
	selected := regexp.MustCompile(`\$(\d+)`).ReplaceAllString(strings.TrimSuffix(values, ")"), "v.p$1")
	return head + "SELECT " + selected + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS v (" + strings.Join(names, ", ") + ")"
}

// merge returns statements that do the same, with the rows of one table in one, where the first of them was. So rows
// still come after those that they refer to, provided that they do so in what makes one mail.
func (m inserts) merge(statements []statement) []statement {
	rows := map[string][][]any{}
	var order []string
	var merged []statement
	for _, st := range statements {
		if _, can := m[st.query]; !can {
			merged = append(merged, st)
			continue
		}
		if rows[st.query] == nil {
			order = append(order, st.query)
		}
		rows[st.query] = append(rows[st.query], st.args)
	}
	inserted := make([]statement, 0, len(order)+len(merged))
	for _, query := range order {
		inserted = append(inserted, m[query].over(query, rows[query]))
	}
	return append(inserted, merged...)
}

// over returns the statement for rows.
func (m manyRows) over(query string, rows [][]any) statement {
	if len(rows) == 1 {
		return statement{query, rows[0]}
	}
	args := make([]any, len(m.kinds))
	for i, kind := range m.kinds {
		column := make([]any, len(rows))
		for j, row := range rows {
			column[j] = row[i]
		}
		args[i] = array(kind, column)
	}
	return statement{m.query, args}
}

// array returns values as an array of text (t), bigint (i) or bytea (b). nil is NULL.
func array(kind rune, values []any) any {
	switch kind {
	case 'b':
		all := make([][]byte, len(values))
		for i, v := range values {
			all[i], _ = v.([]byte) // nil is NULL, too
		}
		return all
	case 'i':
		return pointers(values, func(v any) int64 { return reflect.ValueOf(v).Int() })
	}
	return pointers(values, func(v any) string { return v.(string) })
}

func pointers[T any](values []any, of func(any) T) []*T {
	all := make([]*T, len(values))
	for i, v := range values {
		if v != nil {
			one := of(v)
			all[i] = &one
		}
	}
	return all
}
