// Package doctor checks, before money is spent, everything that a deployment needs: credentials, APIs, permissions, topics,
// subscriptions, buckets, tables, views, lanes and the clock. Each finding says what is wrong, where, and how exactly to put it right.
//
// Run looks only: it publishes nothing, receives nothing, writes nothing and makes no call that costs money. What it may not look at it
// says so, as a note, and goes on; a check that can't be made is no defect. Permissions are those of the account that runs it.
//
// Mend puts right what is safe and can be taken back: settings of subscriptions, the lifecycle rule for signs of life, missing views. It
// grants no permission, deletes nothing, and shortens nothing's life but that of signs of life which nobody reads any more.
//
// Against emulators only what they can tell is checked: that things exist and have their shape.
//
// What a check looks for is Terraform's doing in deploy/terraform. A deployment that was made otherwise passes if it comes to the same.
package doctor
