"""Alerts: rules over timelines, evaluated in event time, and webhooks that tell of them.

`rules` says what a rule is, `evaluator` evaluates one second after the other without clock or store, `feed` brings the seconds,
`rule_evaluator` keeps each rule's state in the store, `outbox` and `webhook` tell others, `service` runs all of it under one
`leader_lease`.
"""
