"""The process of a camera, and the link to it."""
