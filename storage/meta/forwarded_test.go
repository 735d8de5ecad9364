package meta_test

import (
	"context"
	"database/sql"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealpost/gateway"
	"sealpost/storage/meta"
	"sealpost/storage/meta/metatest"
)

// checkForwarded expects where mail has been forwarded to.
func checkForwarded(t *testing.T, s *meta.Store, what string, want map[string]string) {
	t.Helper()
	if got, err := s.ForwardedTo(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
}

// rememberForwarded: what the deliveries say is kept, and what the store is told; a correspondent's address is not. forget
// deletes all deliveries.
func rememberForwarded(t *testing.T, open func() *meta.Store, forget func()) {
	s := open()
	m := newMail(t, s)
	m.Deliveries = append(m.Deliveries, gateway.NewDelivery{Route: gateway.Route{Address: gateway.ReturnRoute, ForwardTo: "anna.marker@client.example"}})
	if err := s.CommitMail(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"support@x-0.case.example": "support0@example.com", "support@x-1.case.example": "support1@example.com",
	}
	checkForwarded(t, s, "what was delivered", want)
	fresh := map[string]string{"support@x-1.case.example": "renamed@example.com", "Ünder_%@x-2.case.example": "support2@example.com"}
	if err := s.KeepForwardedTo(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSetting(t.Context(), "forwarder", "something else"); err != nil {
		t.Fatal(err)
	}
	forget()
	maps.Copy(want, fresh)
	checkForwarded(t, s, "what was kept", want)
	checkForwarded(t, open(), "after a restart", want)
}

func TestForwardedToIsRemembered(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		path, keys := filepath.Join(t.TempDir(), "meta.db"), metatest.NewKeys()
		rememberForwarded(t, func() *meta.Store { return open(t, path, keys, time.Now) }, func() {
			execAll(t, path, func(db *sql.DB) error {
				_, err := db.Exec(`DELETE FROM deliveries`)
				return err
			})
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		_, url := newPostgres(t)
		keys := metatest.NewKeys()
		rememberForwarded(t, func() *meta.Store { return openPostgres(t, url, keys) }, func() {
			withPostgres(t, url, func(ctx context.Context, conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, `DELETE FROM deliveries`)
				return err
			})
		})
	})
}
