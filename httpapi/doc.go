// Package httpapi is the REST door of jobstream. It hands requests to the operations
// of package api, which read them, and sends their answers. It decides nothing about
// jobs itself, because the NATS service offers the same operations.
//
// Where to start: routes.go connects the operations with their paths, and around.go
// has what a request passes before that. call.go is a request as an operation sees it,
// answer.go sends what comes back; list.go and result.go do so for answers that are
// not simply JSON. Echo stays inside this package; others see an http.Handler.
package httpapi
