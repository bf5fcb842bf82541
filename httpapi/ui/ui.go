// Package ui has the files that browsers get: the dashboard, the page that shows the API, and
// the libraries of others that they use.
//
// Where to start: index.html loads app.js, which has the frame and the views (pages/*.js).
// Below these are api.js (requests and streams), live.js (the figures of each second), route.js
// (the address is the state), keys.js and parts.js (what views are made of). There is no build
// step: browsers run these files as they are. The folder vendor has the libraries; its script
// "update" fetches them again.
package ui

import "embed"

// Files are all of them.
//
//go:embed *.html *.css *.js *.svg pages/*.js vendor/*.gz
var Files embed.FS
