// Package vertex makes online calls to the Gemini image models on Vertex AI, and to image models on endpoints of the project's own; and it
// has batch prediction jobs made, and reads what they made. [Online] implements worker.Model, [Batches] and [BatchFormat] two ports of
// worker/batch.
//
// Contract: one [Online.Generate] is at most one paid request, by the lane that the call names and no other. Nothing here follows
// redirects, continues an answer, or tries again what may have been paid for; the caller decides what happens next, from the kind of
// the error. What was certainly not sent is never called Unanswered, and what may have been paid for is never called anything else. There
// is one second request: a call that asked the model to write its image to Cloud Storage itself and was refused, which is free, is
// made again without the wish where that may have been the reason.
//
// Calls go through google.golang.org/genai, which builds requests and reads answers. Beneath it a RoundTripper takes the
// images out of the JSON while it arrives: [scanner] finds them, [decoder] turns their base64 into a blob of the byte
// budget, and the SDK sees a few kilobytes with a placeholder in each image's stead. Left alone, the SDK holds an answer
// several times and spends eight times the CPU. Thought signatures, of a megabyte and more, are dropped on the way: they
// serve only a next turn of a conversation, and a job has none.
//
// Where a call has a prefix and the model honours the wish, the image never comes here; [outlets] remembers, for each model, lane and
// bucket, what one call at a time found out about that.
//
// Dedicated endpoints take Predict calls over gRPC, through cloud.google.com/go/aiplatform. gRPC holds an answer whole before the
// byte budget can be asked, so those calls are bounded by the size of an answer times the calls in flight; [rpcWatcher] tells the
// service's errors, which are free, from those of the way there and back.
//
// A row of a batch's output is read as an online answer is: the same scanner takes the image out of the line while it arrives, and the same
// function makes an answer of the rest. [Batches.Create] is at most one paid job, and says Unanswered of whatever may have become one.
//
// Invariants:
//   - Image bytes are the model's, verbatim, and are held only within the byte budget. An answer waits for the budget
//     before its image is read; answers without an image never wait.
//   - A call holds at most one blob and one reservation, so calls that wait for the budget can't block each other for ever.
//   - Every blob is released, on every path, by this package or by the caller that was given it.
//   - An image that a model wrote elsewhere than below the call's own prefix is no answer: it may be another job's, or in another region.
//   - Neither prompts nor the service's unshortened words are part of any error, detail or log.
//
// Non-goals: retries of what is paid for, pacing, the choice of a lane; which row is whose.
package vertex
