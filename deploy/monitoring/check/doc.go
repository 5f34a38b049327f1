// Package check has tests only. They hold every query in PromQL that this repository gives to Cloud Monitoring (the autoscaler's, the alerts', the
// dashboard's, and those in the documentation) to what the workers show and what Google evaluates, and run those that decide something, with
// Prometheus' own engine, over metrics of the shapes that workers and Pub/Sub have. It is a module of its own, so that the engine is no
// dependency of assetmill.
//
// Cloud Monitoring evaluates part of a query in a backend of its own, with slightly different rates and no staleness. That is not tested here.
package check
