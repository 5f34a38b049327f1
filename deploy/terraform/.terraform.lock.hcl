# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/hashicorp/google" {
  version     = "7.45.0"
  constraints = "~> 7.45"
  hashes = [
    "h1:8XvpewCN5jsdFQkfQ2DioaapJhjiX6+k6xknhqyDKuQ=",
  ]
}
