"""The HTTP API: streams are registered, and their timelines read, under `/api/v1`. `docs/api.md` is its reference."""
