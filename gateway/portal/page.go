package portal

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"

	"sealpost/gateway"
)

// web holds the templates, and below dist what ui/build.sh made of the TypeScript, if it has run.
//
//go:embed ui/web
var web embed.FS

// pages are the pages and assets, ready to be written.
type pages struct {
	main     []byte // of / and of every /p/ID: the same bytes
	notFound []byte
	assets   map[string]asset // by file name, which holds a hash of the content
}

type asset struct {
	contentType string
	body        []byte
}

// bundle names the built files by their role.
type bundle struct{ Style, Icon, Link, Portal string }

// metafile is the part that we need of what esbuild writes: which output came from which entry point.
type metafile struct {
	Outputs map[string]struct {
		EntryPoint string `json:"entryPoint"`
	} `json:"outputs"`
}

func loadPages() (*pages, error) {
	files, err := fs.Sub(web, "ui/web")
	if err != nil {
		return nil, fmt.Errorf("find the portal's pages: %w", err)
	}
	names, err := readBundle(files)
	if err != nil {
		return nil, err
	}
	p := &pages{assets: map[string]asset{}}
	if err := p.loadAssets(files); err != nil {
		return nil, err
	}
	templates, err := template.ParseFS(files, "*.html")
	if err != nil {
		return nil, fmt.Errorf("read the portal's templates: %w", err)
	}
	if p.main, err = render(templates, "portal.html", names); err != nil {
		return nil, err
	}
	p.notFound, err = render(templates, "notfound.html", names)
	return p, err
}

func render(templates *template.Template, name string, data any) ([]byte, error) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// readBundle finds the built files; all names are empty when they were not built.
func readBundle(files fs.FS) (bundle, error) {
	raw, err := fs.ReadFile(files, "dist/meta.json")
	if errors.Is(err, fs.ErrNotExist) {
		return bundle{}, nil
	}
	if err != nil {
		return bundle{}, fmt.Errorf("read the list of built pages: %w", err)
	}
	var meta metafile
	if err := json.Unmarshal(raw, &meta); err != nil {
		return bundle{}, fmt.Errorf("read the list of built pages: %w", err)
	}
	var b bundle
	for output, from := range meta.Outputs {
		switch path.Base(from.EntryPoint) {
		case "portal.css":
			b.Style = path.Base(output)
		case "icon.svg":
			b.Icon = path.Base(output)
		case "link.ts":
			b.Link = path.Base(output)
		case "portal.ts":
			b.Portal = path.Base(output)
		}
	}
	if b.Style == "" || b.Icon == "" || b.Link == "" || b.Portal == "" {
		return bundle{}, errors.New("the built pages are incomplete: run make build")
	}
	return b, nil
}

func (p *pages) loadAssets(files fs.FS) error {
	entries, err := fs.ReadDir(files, "dist")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the built pages: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "meta.json" {
			continue
		}
		body, err := fs.ReadFile(files, path.Join("dist", entry.Name()))
		if err != nil {
			return fmt.Errorf("read a built page: %w", err)
		}
		p.assets[entry.Name()] = asset{contentType: contentType(entry.Name()), body: body}
	}
	return nil
}

// contentType does not ask the host's tables, which may call a script something else.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}

func (p *pages) serveHome(w http.ResponseWriter, _ *http.Request) {
	writeHTML(w, http.StatusOK, p.main)
}

// servePackage answers alike for every ID: what there is, only the API tells, and only to agents.
func (p *pages) servePackage(w http.ResponseWriter, r *http.Request) {
	if _, err := gateway.ParsePackageID(r.PathValue("id")); err != nil {
		p.serveNotFound(w, r)
		return
	}
	writeHTML(w, http.StatusOK, p.main)
}

func (p *pages) serveNotFound(w http.ResponseWriter, _ *http.Request) {
	writeHTML(w, http.StatusNotFound, p.notFound)
}

func (p *pages) serveAsset(w http.ResponseWriter, r *http.Request) {
	found, ok := p.assets[r.PathValue("name")]
	if !ok {
		p.serveNotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", found.contentType)
	h.Set("Content-Length", strconv.Itoa(len(found.body)))
	// The name changes with the content.
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(found.body)
}

func writeHTML(w http.ResponseWriter, status int, page []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(status)
	_, _ = w.Write(page)
}
