"""Live cameras: one process per camera reads and decodes; the ingest worker numbers what it gets and sends it on."""
