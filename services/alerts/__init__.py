"""Alerts: rules over timelines, judged in event time, and webhooks that tell of them.

`rules` says what a rule is, `evaluator` judges one second after the other without clock or store, `feed` brings the seconds,
`judge` keeps each rule's state in the store, `outbox` and `webhook` tell others, `service` runs all of it under one `lease`.
"""
