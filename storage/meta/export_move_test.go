package meta

import "context"

// CarriedTables returns the tables that a move carries over, parents first.
func CarriedTables() []string {
	var names []string
	for _, table := range carried() {
		names = append(names, table.name)
	}
	return names
}

// Contents returns what the database holds.
func (s *Store) Contents(ctx context.Context) (Contents, error) {
	return (&Source{s}).Contents(ctx, func(string, int64) {})
}
