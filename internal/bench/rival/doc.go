// Package rival holds what the worker is measured against: the floor, which does as little as the bytes allow, and the naive worker, which is what
// one writes on the first day with Google's client libraries as they come.
//
// Neither is fit for use: the floor looks at nothing, and the naive worker pays twice whenever a message comes back.
package rival
