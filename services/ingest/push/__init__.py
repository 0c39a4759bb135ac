"""Frames that others push over HTTP or a web socket."""
