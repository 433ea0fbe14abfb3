"""The kinds of tenancy."""
