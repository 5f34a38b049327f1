// Package vertextest is a Vertex AI for tests, demos and benchmarks. It
// answers image generation calls and runs batch prediction jobs over real
// sockets, in the real protocols, as strictly and as unreliably as the service
// does, and it draws the images itself. Nothing leaves the machine and nothing
// is paid for.
//
// # What it serves
//
// REST, over HTTP/1.1 and HTTP/2, in plain text (h2c) or TLS:
//
//	POST /{v1|v1beta1}/projects/P/locations/L/publishers/google/models/M:generateContent
//	POST /{v1|v1beta1}/projects/P/locations/L/publishers/google/models/M:countTokens
//	POST /{v1|v1beta1}/projects/P/locations/L/endpoints/E:predict
//	batchPredictionJobs: create, get, list, cancel, delete
//
// gRPC: google.cloud.aiplatform.v1.PredictionService, methods GenerateContent
// and Predict (for an endpoint of one's own), and JobService, the methods of
// batch prediction jobs. Both transports allow 100 streams on one HTTP/2
// connection, as Google's front end does.
//
// # What it holds to
//
//   - One answer by the model is one line in [Config.CallLog], whether or not
//     the client read it; a call without an answer (4xx, 429, 5xx, hang) is
//     never logged. The line is written before the last byte of the answer, so
//     a client that has a whole answer can find its line.
//   - The same configuration and the same calls give the same fates and the
//     same images, whatever the order of arrival: every choice is a hash of
//     [Config.Seed], the content of the request and how often that content
//     came before.
//   - An image carries the SHA-256 of its prompt ([PromptHash]) and of its
//     whole context of turns and references ([ContextHash]), so a checker can
//     tell whether the right image is filed under the right job. Interim
//     (thought) images carry none.
//   - No output of a batch is held in memory, however large.
//   - [Server.Close] returns when every handler and every job has returned.
//
// # Who is billed
//
// An answer is billed when the model has made it: after the latency, and
// whether or not it arrives. So a body cut in the middle, a garbled body, a
// slow body and a lost answer are billed; a hang is not, because the model
// never answers. A client that leaves during the latency cancels the call and
// is not billed, unless [Config.BillAbandoned] is set. An image that could not
// be written to Cloud Storage is billed. A row of a batch is billed when it was
// answered, duplicates and orphans too, and also when the output lacks or
// damages it; rows that failed, or that a job did not get to, are not.
//
// # Quota
//
// Each (project, location, model, tier) has a token bucket that nobody is told
// of. It can change by steps ([Config.QuotaSteps]), wander with the noise of
// other tenants ([Config.QuotaNoise]) and punish steep ramps
// ([Config.QuotaGrowth]). Bought throughput serves first and spills over. A gate
// ([Config.GateAt]) makes many answers leave at the same moment.
//
// # Images straight to Cloud Storage
//
// [Config.DirectOutput] says what each model makes of
// outputConfig.outputUriPrefix: ignored (the default), honoured, refused or
// denied. Which of Google's models do what is not documented, and neither are
// the names: here an image is
// <prefix>/<microseconds>-<number>/sample_<n>.<type>, counting all images of an
// answer, interim ones too.
//
// # Batch prediction
//
// A job reads one JSONL file, answers its rows in an order of its own and
// writes <prefix>/prediction-model-<time>/predictions.jsonl, or
// predictions_0000.jsonl and so on with [Batch.ShardRows]. [Batch] and
// [BatchFaults] have all that can go wrong. Names of jobs have the project's
// number, whatever the caller used; both are understood. A job whose input is
// an earlier output copies the rows that have an answer, free of charge, and
// answers the others. A row's outputConfig is ignored. Keys of an exported row
// are in alphabetical order inside request and response. Not documented, so
// guesses: that creation does not look at the input, that a malformed line
// fails the job and an invalid request only its row, that the newest job is
// listed first, the names of shards.
//
// # Directives
//
// A prompt can choose its own fate, which makes a CSV of prompts a test plan.
// Directives stand in the prompt in double brackets and override the rates in
// [Config]; [Config.Hook] overrides both. Text in brackets that is no directive
// is left alone. A directive ending in xN counts for the first N calls with
// this prompt text (calls that passed validation and the quota).
//
//	[[refuse:prompt]]         blocked by the prompt filter (PROHIBITED_CONTENT)
//	[[refuse:prompt:REASON]]  the same with another blockReason
//	[[refuse:output]]         blocked by the output filter (IMAGE_SAFETY)
//	[[refuse:text]]           STOP with text and no image
//	[[refuse:none]]           NO_IMAGE
//	[[refuse:REASON]]         that finishReason, known to anybody or not
//	[[fault:500]]             that HTTP status with Google's text for it
//	[[fault:hang]]            no answer until the client gives up (not billed)
//	[[fault:cut]]             the body breaks off in the middle (billed)
//	[[fault:garbage]]         status 200 and a body that is not JSON (billed)
//	[[fault:slow]]            the body trickles for Config.SlowBody (billed)
//	[[fault:lost]]            answered, written and billed, but never sent
//	[[fault:lost503]]         the same, and that HTTP status is sent
//	[[fault:429x2]]           throttled twice, then served
//	[[text]]                  a text part before the image
//	[[thought]]               an interim image marked thought:true before the real one
//	[[two]]                   two image parts
//	[[nousage]]               no usageMetadata
//	[[escape]]                unusual but legal JSON: data before mimeType, \/ and \u
//	                          escapes, \n inside the base64, odd white space
//	[[bytes:N]]               the image file padded to exactly N bytes, still valid
//	[[latency:2s]]            that latency
//
// In a row of a batch the same directives count, where a status is a failed
// row, hang a missing one, and cut and garbage damage the line. Only there:
//
//	[[batch:missing]]         not made, not exported
//	[[batch:lost]]            made and billed, not exported
//	[[batch:cut]]             the line breaks off in the middle
//	[[batch:base64]]          a character that base64 has not
//	[[batch:garbage]]         a line that is not JSON
//	[[batch:copies:N]]        N more answers, at most 19
//	[[batch:orphan]]          one more row, with a request that nobody sent
//	[[batch:nolabels]]        echoed without its labels
//	[[batch:nulls]]           echoed with nulls
//	[[batch:reversed]]        the response before the request
//
// # Control
//
// A program in another process steers the server over REST:
//
//	GET  /_vertextest/stats             [Stats]
//	GET  /_vertextest/gate              {"at":N,"waiting":N}
//	POST /_vertextest/gate              {"at":N} changes Config.GateAt
//	POST /_vertextest/gate/open         sends what the gate holds
//	POST /_vertextest/quota             {"tier":T,"requestsPerMinute":N}
//	GET  /_vertextest/batches           a list of [BatchJob]
//	POST /_vertextest/batches/step      {"name":J,"rows":N}, see [Server.StepBatch]
//	POST /_vertextest/batches/expire    {"name":J}
//
// # What it is not
//
// No authentication, no tokens per minute, no batch prediction from or to
// BigQuery, no streamGenerateContent, no caching, no tools: requests that ask
// for tools are accepted and the tools are ignored. Jobs are forgotten when the
// server closes. Token counts of text are an estimate at four bytes a token.
// The wire numbers of finish reasons that the public proto lacks are not
// documented anywhere; the ones used over gRPC are a guess.
package vertextest
