package main

import "syscall"

// workerAttributes puts a worker into a process group of its own, so that a Ctrl-C at the terminal doesn't reach it: it is to be
// stopped after the submission. When this process is killed with no chance to stop it, the kernel does.
func workerAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
