"""Campaigns: settings, ledger, funnel. This file stays empty so that workers start fast."""
