package gcs

import "time"

// SetTimeout bounds each request of an uploader.
func SetTimeout(u *Uploader, d time.Duration) { u.timeout = d }
