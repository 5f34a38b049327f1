# A budget tells; it does not stop spending.
resource "google_billing_budget" "this" {
  count           = var.budget == null ? 0 : 1
  billing_account = var.budget.billing_account
  display_name    = "assetmill in ${var.project_id}"

  budget_filter {
    projects               = ["projects/${local.project_number}"]
    calendar_period        = "MONTH"
    credit_types_treatment = "INCLUDE_ALL_CREDITS"
  }

  amount {
    specified_amount {
      currency_code = var.budget.currency
      units         = tostring(var.budget.amount)
    }
  }

  dynamic "threshold_rules" {
    for_each = var.budget.thresholds
    content {
      threshold_percent = threshold_rules.value
    }
  }
  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    disable_default_iam_recipients = false
    # Cloud Billing takes five of them.
    monitoring_notification_channels = slice(
      [for c in google_monitoring_notification_channel.this : c.id],
      0, min(5, length(google_monitoring_notification_channel.this)),
    )
  }

  depends_on = [google_project_service.this]
}
