// Package batchtest holds the ports of package batch in memory: files, a Vertex that runs batch prediction jobs by the clock, a format of
// its own, and topics. All of them are safe for concurrent use, and keep nothing that a caller could change afterwards.
//
// The format is JSON lines like the real one, reduced to what package batch looks at: a request is a prompt, a seed and two labels, an
// image is text that begins with the prompt it was made from. So a test can tell whose image it looks at.
package batchtest
