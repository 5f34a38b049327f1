package worker

// EncodeCRC32C is encodeCRC32C for tests.
var EncodeCRC32C = encodeCRC32C
