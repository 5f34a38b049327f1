// Package telemetry is how a process shows what it does: it opens the providers of metrics and traces, serves metrics and probes
// over HTTP, draws the line that a person watches, and fits the Go runtime to the memory of its container.
//
// Nothing is global. What measures is handed a meter or a tracer; packages that are handed none measure nothing, and the clients of
// Google Cloud, which look for global providers, find none. Errors of exporters go to the log, at most one a minute.
//
// The package knows no part of assetmill: what it shows of lanes, budgets and heartbeats it is told in its own types. docs/metrics.md
// lists every metric, whichever package records it, and a test here holds the list to the truth.
package telemetry
