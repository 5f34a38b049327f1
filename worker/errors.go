package worker

import "errors"

// ErrFenced says that a ticket no longer holds its job: another worker has taken it over or finished it.
var ErrFenced = errors.New("the job is no longer held by this ticket")

// ErrRowRefused says that lineage can never store a row as it is. Trying again is useless.
var ErrRowRefused = errors.New("lineage refuses the row")

// ErrNoLane says that no lane of this worker serves what a job asks for, or that those that did are shut.
var ErrNoLane = errors.New("no lane serves the job")

// ErrLanesShut says that every lane of this worker is shut: no job can be served.
var ErrLanesShut = errors.New("every lane is shut")

// ErrVoid says that a batch was voided and can't be sealed any more: its gatherer was taken for dead. Its jobs' claims may be anybody's.
var ErrVoid = errors.New("the batch is void")

// ErrUnusable says that what a model wrote to Cloud Storage itself is no image, or is not there.
var ErrUnusable = errors.New("the model wrote no usable image")
