# Everything that has no default. `terraform apply -var-file=examples/minimal.tfvars`
project_id = "my-project-123"
region     = "europe-west4"

# Who may ask the views, and who may run the command line.
access = {
  analysts  = ["group:marketing-analysts@example.com"]
  operators = ["group:creative-ops@example.com"]
}

# Who hears when something is wrong.
alerts = {
  channels = {
    ops = { labels = { email_address = "creative-ops@example.com" } }
  }
}
