// Package terraform has no code. Its tests hold the Terraform module of this folder to the names, schemas and settings of the Go code,
// which Terraform can't see; terraform test, which needs the provider, does the rest.
package terraform
