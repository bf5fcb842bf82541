package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// asset is a document or a file that stays as it is while the server runs. It is sent
// compressed to those who accept that, and only once to those who keep it.
type asset struct {
	contentType []string
	policy      string // the Content-Security-Policy of a page; "" = it is none
	zipped      []byte
	etag        []string
	cache       []string // the Cache-Control
}

// newAsset makes an asset of its content.
func newAsset(contentType string, content []byte) *asset {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // memory takes everything
	}
	return zippedAsset(contentType, b.Bytes())
}

// zippedAsset makes an asset of its compressed content. Its tag is weak, because what is
// sent depends on the encoding.
func zippedAsset(contentType string, zipped []byte) *asset {
	sum := sha256.Sum256(zipped)
	return &asset{contentType: []string{contentType}, zipped: zipped, etag: []string{fmt.Sprintf(`W/"%x"`, sum[:16])}, cache: mustAsk}
}

// send sends the asset.
func (a *asset) send(c echo.Context) error {
	h := c.Response().Header()
	h["Cache-Control"] = a.cache
	h["Etag"] = a.etag
	h["Vary"] = varyEncoding
	if a.policy != "" {
		h.Set("Content-Security-Policy", a.policy)
	}
	if strings.Contains(c.Request().Header.Get("If-None-Match"), a.etag[0][len("W/"):]) {
		return c.NoContent(http.StatusNotModified)
	}
	if !strings.Contains(c.Request().Header.Get("Accept-Encoding"), "gzip") {
		plain, err := a.unzip()
		if err != nil {
			return err
		}
		return send(c, http.StatusOK, a.contentType, plain)
	}
	h["Content-Encoding"] = gzipped
	return send(c, http.StatusOK, a.contentType, a.zipped)
}

func (a *asset) unzip() ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(a.zipped))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// Values of headers, see jsonType.
var (
	mustAsk      = []string{"no-cache"}                            // before each use
	forEver      = []string{"public, max-age=31536000, immutable"} // another version has another path
	varyEncoding = []string{"Accept-Encoding"}
	gzipped      = []string{"gzip"}
)
