package httpapi

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"jobstream/httpapi/ui"
	"jobstream/jobs/api"
	"jobstream/jobs/apidoc"
	"jobstream/jobs/form"
)

// page is something with a GET route that is not an operation. It is open: nobody needs
// a token, and it is answered when nothing else is.
type page struct {
	doc    form.Doc
	serve  func(*Server, echo.Context) error
	status int // of its answer; 0 = 200
}

// pages are all of them by their paths.
var pages map[string]*page

func init() { // the description that a page shows is also of the pages
	pages = map[string]*page{
		"/livez":          {doc: liveDoc, serve: (*Server).live},
		"/readyz":         {doc: readyDoc, serve: (*Server).ready},
		"/healthz":        {doc: healthDoc, serve: (*Server).healthy},
		"/health":         {doc: healthDoc, serve: (*Server).healthy},
		"/openapi.json":   {doc: openAPIDoc, serve: (*Server).openAPI},
		"/asyncapi.json":  {doc: asyncAPIDoc, serve: (*Server).asyncAPI},
		"/docs":           {doc: docsDoc, serve: (*Server).docs},
		"/docs/scalar.js": {doc: scriptDoc, serve: (*Server).script},
		"/":               {homeDoc, (*Server).home, http.StatusFound},
		"/favicon.ico":    {doc: iconDoc, serve: (*Server).icon},
		"/ui":             {homeDoc, (*Server).home, http.StatusFound},
		"/ui/*":           {doc: dashboardDoc, serve: (*Server).dashboard},
	}
}

var (
	openAPIDoc = form.Doc{
		Summary: "Get this description",
		Text:    "OpenAPI 3.1 of everything that is served.",
		Answer:  form.Schema{"type": "object"}, Others: unchanged,
	}
	asyncAPIDoc = form.Doc{
		Summary: "Get the description of the NATS side",
		Text:    "AsyncAPI 3 of all subjects.",
		Answer:  form.Schema{"type": "object"}, Others: unchanged,
	}
	docsDoc = form.Doc{
		Summary: "Read this description in a browser",
		Text:    "The page needs nothing from elsewhere.",
		Answer:  form.Content{"text/html"}, Others: unchanged,
	}
	scriptDoc = form.Doc{Summary: "Get the script of that page", Answer: form.Content{"text/javascript"}, Others: unchanged}

	unchanged = map[int]any{304: nil}
)

// documents are the descriptions of the API, made when the first one is asked for.
type documents struct{ open, async *asset }

func describe(version string) *documents {
	served := append([]*api.Operation{}, api.Operations()...)
	for _, path := range slices.Sorted(maps.Keys(pages)) {
		name := cmp.Or(strings.NewReplacer("/", "", ".", "_", "*", "_view").Replace(path), "home")
		served = append(served, &api.Operation{
			Name: name, Route: "GET " + strings.Replace(path, "*", "{view}", 1), Status: cmp.Or(pages[path].status, 200), Doc: pages[path].doc,
		})
	}
	o := apidoc.Options{Version: version, Operations: served}
	return &documents{newAsset("application/json", apidoc.OpenAPI(o)), newAsset("application/json", apidoc.AsyncAPI(o))}
}

// openAPI is GET /openapi.json. Under a prefix, the paths in it begin there.
func (s *Server) openAPI(c echo.Context) error {
	a, prefix := s.described().open, prefixOf(c.Request())
	if prefix == "" {
		return a.send(c)
	}
	plain, err := a.unzip()
	if err != nil {
		return err
	}
	root, below := []byte(`"this server","url":"/"`), []byte(`"this server","url":"`+prefix+`"`)
	return send(c, http.StatusOK, a.contentType, bytes.Replace(plain, root, below, 1))
}
func (s *Server) asyncAPI(c echo.Context) error { return s.described().async.send(c) }

// docs is GET /docs.
func (s *Server) docs(c echo.Context) error { return docsFiles().page.send(c) }

// script is the script of that page.
func (s *Server) script(c echo.Context) error { return docsFiles().script.send(c) }

// docsPolicy lets the page load its script and ask this server, and nobody else.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsFiles are the page that shows the description, and its script.
var docsFiles = sync.OnceValue(func() (f struct{ page, script *asset }) {
	f.page = newAsset("text/html; charset=utf-8", embedded("docs.html"))
	f.page.policy = docsPolicy
	f.script = zippedAsset("text/javascript; charset=utf-8", embedded("vendor/scalar.js.gz"))
	return f
})

func embedded(name string) []byte {
	b, err := ui.Files.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return b
}
