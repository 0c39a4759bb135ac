"""The common base of all workers: messages, interfaces, settings, metrics and errors."""
