// Package httpapi is the REST door of jobstream. It hands requests to the operations
// of package api, which read them, and sends their answers. It decides nothing about
// jobs itself, because the NATS service offers the same operations.
//
// Where to start: routes.go connects the operations with their paths, pages.go has all
// that is served besides, and around.go has the checks before that. request.go is a
// request as an operation sees it, call.go bounds how many there are at a time. answer.go
// sends the answers; list.go, log.go and result.go send those that are not simply JSON.
// Echo stays inside this package; others see an http.Handler.
package httpapi
