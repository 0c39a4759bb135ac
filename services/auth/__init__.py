"""Callers and their rights: keys, roles, limits of failed sign-ins, audit log."""
