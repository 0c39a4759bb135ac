"""The base class of all answers."""

import msgspec


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that the API answers."""

    def to_json(self) -> str:
        """Return it as indented JSON, as the API writes it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()
