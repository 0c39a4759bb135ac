"""Who calls and what they may do: keys, roles, limits of failed sign-ins, audit log."""
