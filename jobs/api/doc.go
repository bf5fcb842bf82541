// Package api is what people and programs may ask of the server, whatever the door: the
// operations and the forms of their requests and answers.
//
// Start reading at [Operator].
package api
