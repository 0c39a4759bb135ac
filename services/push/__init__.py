"""Frames that devices and browsers bring to the API, under the rules of live cameras."""
