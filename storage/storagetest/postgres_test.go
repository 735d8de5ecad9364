package storagetest

import "testing"

func TestPostgresComesBack(t *testing.T) {
	p := StartPostgres(t)
	name := p.NewDatabase(t)
	if err := p.exec(t.Context(), name, "CREATE TABLE kept (id int)"); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if err := p.exec(t.Context(), name, "TABLE kept"); err == nil {
		t.Fatal("it answers after its end")
	}
	p.Start(t)
	if err := p.exec(t.Context(), name, "TABLE kept"); err != nil {
		t.Errorf("what was committed is gone: %v", err)
	}
}
