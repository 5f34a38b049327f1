// Package workertest holds in-memory ports with the semantics of the real services, for testing the worker's spine under
// virtual time. They are safe for concurrent use and keep nothing that a caller could change afterwards.
//
// Each port has a hook that is asked before an operation takes effect; an error from it is returned in place of the effect.
package workertest
