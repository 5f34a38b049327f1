// Package check has tests only. They build what deploy/kubernetes describes, as `kubectl apply -k` would, decode it strictly into the types
// of Kubernetes, KEDA and Managed Service for Prometheus, and hold it to what the worker's code and deploy/terraform say: names, flags, times
// and thresholds. It is a module of its own, so that these types are no dependency of assetmill.
//
// They also follow docs/deploy.md, the way from an empty project to the first image: its commands are run from top to bottom in a copy of the
// repository. Those that need a project are played by stand-ins, which know the flags, files and names that there are and refuse all others. What
// Google and a cluster would answer is not tested.
//
// What the queries of the autoscaler answer is tested in deploy/monitoring/check. What only a cluster checks, such as Autopilot's own rules, is
// not tested at all.
package check
