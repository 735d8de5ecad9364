package meta

import (
	"io/fs"
	"strings"
)

// WrappedColumns returns the key of each table with wrapped columns, with commas in between, and all these columns as
// table.column.
func WrappedColumns() (keys map[string]string, columns []string) {
	keys = map[string]string{}
	for _, table := range wrappedTables() {
		keys[table.name] = strings.Join(table.key, ",")
		for _, column := range table.columns {
			columns = append(columns, table.name+"."+column)
		}
	}
	return keys, columns
}

// Migrations returns the text of all migrations of a dialect.
func Migrations(dialect string) (string, error) {
	files := fs.FS(sqliteMigrations)
	if dialect == "postgres" {
		files = postgresMigrations
	}
	names, err := fs.Glob(files, "migrations/"+dialect+"/*.sql")
	var all strings.Builder
	for _, name := range names {
		text, failed := fs.ReadFile(files, name)
		if failed != nil {
			return "", failed
		}
		all.Write(text)
	}
	return all.String(), err
}
