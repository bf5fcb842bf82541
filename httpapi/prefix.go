package httpapi

import (
	"net/http"
	"net/url"
	"strings"
)

// prefixOf is the part of a request's path that an http.StripPrefix in front of this
// server has removed; "" for none. It belongs in front of the paths in answers.
func prefixOf(r *http.Request) string {
	if p := passedOn(r); p != nil {
		return p.Prefix
	}
	asked, ours := r.RequestURI, r.URL.Path
	if rest, ok := strings.CutPrefix(asked, ours); ok && (rest == "" || rest[0] == '?') {
		return "" // as nearly always
	}
	u, err := url.ParseRequestURI(asked)
	if err != nil {
		return ""
	}
	prefix, ok := strings.CutSuffix(u.Path, ours)
	if !ok || strings.Trim(prefix, safeInPrefix) != "" || strings.HasPrefix(prefix, "//") {
		return ""
	}
	return prefix
}

// safeInPrefix are the bytes of a prefix that may stand in headers and documents.
const safeInPrefix = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_.~"
