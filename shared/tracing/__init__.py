"""Traces of single frames (OpenTelemetry)."""
