"""Analysis of one file from start to end, without a service."""
