// Package ui has the files that browsers get: pages, and the libraries of others that they
// use, which are in the folder vendor. Its script "update" fetches them again.
package ui

import "embed"

// Files are all of them.
//
//go:embed docs.html vendor/*.gz
var Files embed.FS
