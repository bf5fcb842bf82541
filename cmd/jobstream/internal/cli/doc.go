// Package cli has the commands that talk to a running server, and the client of its REST
// API that they share. They call nothing but what /openapi.json describes.
//
// Where to start: [Commands] is their part of the command line. [ServerFlags.Connect]
// finds the server and makes a [Client]. output.go decides between tables and JSON. Each
// command has its own file, or shares one with its like.
package cli
