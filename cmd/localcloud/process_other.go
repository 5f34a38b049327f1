//go:build !linux

package main

import "syscall"

// workerAttributes puts a worker into a process group of its own, so that a Ctrl-C at the terminal doesn't reach it: it is to be
// stopped after the submission.
func workerAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
