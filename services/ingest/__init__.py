"""Ingest: reads streams, samples frames and publishes them.

`source` opens what a URL names, `sampling` chooses frames, `encode` makes JPEGs, `reader` reads one stream, and `worker`
decides which streams this process reads.
"""
