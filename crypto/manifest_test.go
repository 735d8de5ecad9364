package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func testManifest(t testing.TB) (Manifest, []byte) {
	t.Helper()
	f := newFixture(t, 100, []byte("hello"), nil, pattern(250))
	m := f.open(t).Manifest()
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return m, text
}

// The keys and spellings are a format that browsers read too.
func TestManifestFormat(t *testing.T) {
	_, text := testManifest(t)
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	item := got["items"].([]any)[0].(map[string]any)
	segment := item["segments"].([]any)[0].(map[string]any)
	delete(got, "items")
	delete(item, "segments")
	if name, err := ParseObjectName(segment["object"].(string)); err != nil || name.Kind != KindSegment {
		t.Errorf("object %v", segment["object"])
	}
	for _, c := range []struct {
		got  map[string]any
		want string
	}{
		{got, `{"created":"2026-11-24T05:30:00Z","package":"01020303000000000000000000000000","source":"mail","version":1}`},
		{item, `{"crc32":"3610a686","name":"notiz — 1.txt","sha256":"9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50","size":5,"type":"application/octet-stream"}`},
		{map[string]any{"size": segment["size"], "sha256": segment["sha256"]}, `{"sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}`},
	} {
		out, err := json.Marshal(c.got)
		if err != nil || string(out) != c.want {
			t.Errorf("got %s\nwant %s", out, c.want)
		}
	}
	if len(segment) != 5 || segment["stored_size"] == nil || segment["stored_sha256"] == nil {
		t.Errorf("segment has %v", segment)
	}
	if !strings.Contains(string(text), "notiz — 1.txt") || !strings.Contains(string(text), "plan <&>.pdf") {
		t.Error("names are escaped without need")
	}
}

func TestParseManifest(t *testing.T) {
	m, text := testManifest(t)
	got, err := ParseManifest(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := got.encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("does not round-trip: %v", err)
	}
	extended := strings.Replace(string(text), `"version":1`, `"version":1,"future":{"a":[1]}`, 1)
	if _, err := ParseManifest(strings.NewReader(extended)); err != nil {
		t.Errorf("an unknown field: %v", err)
	}
	if _, err := ParseManifest(io.MultiReader(strings.NewReader("{"), errReader{})); !errors.Is(err, errTest) || errors.Is(err, ErrManifest) {
		t.Errorf("a failed read: %v", err)
	}
	if _, err := ParseManifest(io.LimitReader(spaces{}, maxManifest+1)); !errors.Is(err, ErrManifest) {
		t.Errorf("too long: %v", err)
	}
	object := m.Items[0].Segments[0].Object
	foreign := SegmentName(ID{7}, testTime)
	for name, change := range map[string][2]string{
		"no JSON":              {`{"version"`, `"version"`},
		"two values":           {"}\n", "}{}"},
		"unknown version":      {`"version":1`, `"version":2`},
		"no version":           {`"version":1,`, ``},
		"package in capitals":  {`"package":"01020303000`, `"package":"0102030300A`},
		"local time":           {`05:30:00Z`, `05:30:00+01:00`},
		"no source":            {`"source":"mail"`, `"source":""`},
		"size of the item":     {`"size":250`, `"size":251`},
		"size of a segment":    {`"size":50,`, `"size":51,`},
		"negative size":        {`"size":5,`, `"size":-5,`},
		"size is text":         {`"size":5,`, `"size":"5",`},
		"digest in capitals":   {`2cf24dba`, `2CF24dba`},
		"other digest":         {`2cf24dba`, `2cf24dbb`},
		"short checksum":       {`"3610a686"`, `"610a686"`},
		"foreign object":       {object, foreign},
		"object is a head":     {object, HeadName(m.Package, testTime, 1)},
		"object climbs out":    {object, "../" + object},
		"object used twice":    {object, m.Items[1].Segments[0].Object},
		"other package":        {`"package":"0102`, `"package":"0103`},
		"segments missing":     {`"segments":[`, `"sigments":[`},
		"items missing":        {`"items":[`, `"itams":[`},
		"name is not text":     {`"name":"notiz`, `"name":1,"x":"notiz`},
		"created is not there": {`"created"`, `"creeted"`},
	} {
		if !strings.Contains(string(text), change[0]) {
			t.Errorf("%s: nothing to change", name)
		}
		bad := strings.Replace(string(text), change[0], change[1], 1)
		_, err := ParseManifest(strings.NewReader(bad))
		if !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "notiz") {
			t.Errorf("%s: the error tells a file name", name)
		}
	}
}

func TestManifestBoundsSegments(t *testing.T) {
	for name, change := range map[string]func(m *Manifest){
		"a segment over the limit": func(m *Manifest) {
			s := &m.Items[0].Segments[0]
			s.Size, m.Items[0].Size, s.StoredSize = SegmentSize+1, SegmentSize+1, SegmentSize+100
		},
		"stored smaller than its content": func(m *Manifest) { m.Items[0].Segments[0].StoredSize = 5 },
		"stored far larger":               func(m *Manifest) { m.Items[0].Segments[0].StoredSize = 1 << 40 },
		"an empty segment among others":   func(m *Manifest) { m.Items[2].Size -= m.Items[2].Segments[0].Size; m.Items[2].Segments[0].Size = 0 },
		"a name that is not UTF-8":        func(m *Manifest) { m.Items[0].Name = "\xff" },
		"no segments":                     func(m *Manifest) { m.Items[1].Segments = nil },
	} {
		m, _ := testManifest(t)
		change(&m)
		if _, err := m.encode(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errTest }

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func FuzzParseManifest(f *testing.F) {
	_, text := testManifest(f)
	f.Add(text)
	f.Add([]byte(`{"version":1,"items":[{"segments":[{}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Errorf("the error has no kind: %v", err)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("does not encode: %v", err)
		}
		if _, err := ParseManifest(bytes.NewReader(again)); err != nil {
			t.Errorf("does not parse again: %v", err)
		}
	})
}
