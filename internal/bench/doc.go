// Package bench measures the worker: what its process alone spends on an asset, in CPU and in memory, and how many assets it gets done. It is what
// `make bench` runs.
//
// Contract: [Run] starts everything that it needs as processes of its own on this machine, without a cloud: the stand-ins of package
// standin, and one contender after the other against fresh ones. The contenders are the worker's own binary, as it is deployed, and those of
// package rival: the floor and a naive worker. CPU is user and system time as the kernel counts it for the contender's process; memory is that
// process's largest resident set. The stand-ins' share is in neither.
//
// Figures depend on the machine and on who else uses it; ratios of one run hardly do. So all contenders take turns in one run, and a figure
// is the median of its turns.
//
// The program that calls Run must call [ServeRole] first when [RoleVariable] is set: its processes are the program itself.
//
// Non-goals: latencies of a real network and of real services, content of images, anything that needs days.
package bench
