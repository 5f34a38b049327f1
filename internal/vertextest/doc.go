// Package vertextest is a Vertex AI for tests, demos and benchmarks. It
// answers image generation calls over real sockets, in the real protocols, as
// strictly and as unreliably as the service does, and it draws the images
// itself. Nothing leaves the machine and nothing is paid for.
//
// # What it serves
//
// REST, over HTTP/1.1 and HTTP/2, in plain text (h2c) or TLS:
//
//	POST /{v1|v1beta1}/projects/P/locations/L/publishers/google/models/M:generateContent
//	POST /{v1|v1beta1}/projects/P/locations/L/publishers/google/models/M:countTokens
//
// gRPC: google.cloud.aiplatform.v1.PredictionService, methods GenerateContent
// and Predict (for an endpoint of one's own). Both transports allow 100
// streams on one HTTP/2 connection, as Google's front end does.
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
//   - An image carries the SHA-256 of its prompt ([PromptHash]), so a checker can
//     tell whether the right image is filed under the right job. Interim
//     (thought) images carry none.
//   - [Server.Close] returns when every handler has returned.
//
// # Who is billed
//
// An answer is billed when the model has made it: after the latency, and
// whether or not it arrives. So a body cut in the middle, a garbled body and a
// slow body are billed; a hang is not, because the model never answers. A
// client that leaves during the latency cancels the call and is not billed,
// unless [Config.BillAbandoned] is set.
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
// # What it is not
//
// No authentication, no tokens per minute, no batch jobs, no
// streamGenerateContent, no caching, no tools: requests that ask for tools are
// accepted and the tools are ignored. outputConfig is accepted and ignored, so
// a caller that probes for it gets an inline image. Token counts of text are an
// estimate at four bytes a token. The wire numbers of finish reasons that the
// public proto lacks are not documented anywhere; the ones used over gRPC are a
// guess.
package vertextest
