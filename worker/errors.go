package worker

import "errors"

// ErrFenced says that a ticket no longer holds its job: another worker has taken it over or finished it.
var ErrFenced = errors.New("the job is no longer held by this ticket")

// ErrRowRefused says that lineage can never store a row as it is. Trying again is useless.
var ErrRowRefused = errors.New("lineage refuses the row")
