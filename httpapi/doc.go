// Package httpapi is the REST door of jobstream. It reads requests strictly,
// hands them to the [Backend] and shows what comes back; it decides nothing
// about jobs itself: parsing, validation and the table of errors live in
// package jobs, because the NATS service answers by the same rules.
//
// Where to start: routes.go lists everything that is served, [New] makes a
// [Server] of it, and what a request passes before its handler stands in
// around.go. Echo stays inside this package; others see an http.Handler.
package httpapi
