package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"jobstream/httpapi/ui"
	"jobstream/jobs/form"
)

// The dashboard is a page and its modules, in the folder ui. It uses the operations like
// any other client, so nothing here knows what it shows.

// dashboardPolicy lets the page run its own modules and ask this server, and nobody else.
// It names the page's import map by its hash.
const dashboardPolicy = "default-src 'none'; script-src 'self' 'sha256-%s'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types jobstream"

// modulesPath begins the paths of the files. The version behind it changes with any of
// them, so a browser asks for each only once.
const modulesPath = "/ui/-/"

var (
	homeDoc      = form.Doc{Summary: "Go to the dashboard"}
	iconDoc      = form.Doc{Summary: "Get the icon of the dashboard", Answer: form.Content{"image/svg+xml"}, Others: unchanged}
	dashboardDoc = form.Doc{
		Summary: "Open the dashboard in a browser",
		Text:    "Every path below /ui/ is one of its views. It uses only what is described here.",
		Answer:  form.Content{"text/html"}, Others: unchanged,
	}
)

// home is GET /, and the dashboard without its slash.
func (s *Server) home(c echo.Context) error {
	return c.Redirect(http.StatusFound, prefixOf(c.Request())+"/ui/")
}

// icon is GET /favicon.ico.
func (s *Server) icon(c echo.Context) error { return dashboardFiles().icon.send(c) }

// dashboard is every GET below /ui/.
func (s *Server) dashboard(c echo.Context) error {
	files := dashboardFiles()
	name, ok := strings.CutPrefix(c.Request().URL.Path, modulesPath)
	if !ok {
		return files.page.send(c)
	}
	_, name, _ = strings.Cut(name, "/")
	a := files.modules[name]
	if a == nil {
		return echo.ErrNotFound
	}
	return a.send(c)
}

// dashboardFiles are the page, its icon, and all other files by their names.
var dashboardFiles = sync.OnceValue(func() (f struct {
	page, icon *asset
	modules    map[string]*asset
},
) {
	f.modules = make(map[string]*asset)
	sum := sha256.New()
	err := fs.WalkDir(ui.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "vendor/scalar") || name == "docs.html" {
			return err
		}
		content := embedded(name)
		sum.Write(content)
		served := strings.TrimSuffix(name, ".gz")
		kind := contentTypes[path.Ext(served)]
		switch {
		case served != name:
			f.modules[served] = zippedAsset(kind, content)
		case name == "icon.svg":
			f.icon = newAsset(kind, content)
		case name != "index.html":
			f.modules[served] = newAsset(kind, content)
		}
		return nil
	})
	if err != nil {
		panic(err) // they are part of the program
	}
	for _, a := range f.modules {
		a.cache = forEver
	}
	version := fmt.Sprintf("%x", sum.Sum(nil)[:6])
	page := bytes.ReplaceAll(embedded("index.html"), []byte("{modules}"), []byte(modulesPath+version))
	hash := sha256.Sum256(importMap.FindSubmatch(page)[1])
	f.page = newAsset("text/html; charset=utf-8", page)
	f.page.policy = fmt.Sprintf(dashboardPolicy, base64.StdEncoding.EncodeToString(hash[:]))
	return f
})

var importMap = regexp.MustCompile(`(?s)<script type="importmap">(.*?)</script>`)

var contentTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8",
}
