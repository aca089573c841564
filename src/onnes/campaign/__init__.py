"""Campaigns: settings, ledger, funnel."""
