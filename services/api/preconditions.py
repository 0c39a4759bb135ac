"""`If-Match`: a change is made only while what it is based on is still there (RFC 9110, 13.1.1)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Header

from moodline.shared.errors import InvalidStreamError, PreconditionFailedError, RevisionConflictError

IfMatch = Annotated[
    str | None, Header(description='The revision that the change is based on, as in `ETag`: `"3"`; 412 where it is another.')
]
"""Parameter type of handlers that change what has a revision."""

_TAGS: Final = re.compile(r'\s*((W/)?"[\x21\x23-\x7e]*"\s*(,\s*|$))+')
_TAG: Final = re.compile(r'"([\x21\x23-\x7e]*)"')
_REVISION: Final = re.compile(r"(?P<revision>[0-9]{1,15})(-[0-9a-f]+)?", re.ASCII)


def revisions_of(if_match: str | None) -> frozenset[int] | None:
    """Return the revisions that a header `If-Match` names; None where any will do.

    A tag that is none of ours is no revision, so that it fits nothing. Weak tags count: what a proxy has compressed has one,
    and a revision is as good a proof in it.

    Raises:
        InvalidStreamError: for field `If-Match`: what it holds are no tags.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise InvalidStreamError("If-Match", 'If-Match holds a revision in quotes, as in the ETag of an answer: "3"')
    return frozenset(int(found["revision"]) for tag in _TAG.findall(if_match) if (found := _REVISION.fullmatch(tag)))


def require_match(if_match: str | None, revision: int, what: str) -> None:
    """Raise `PreconditionFailedError` unless `If-Match` allows the revision that `what` has."""
    wanted = revisions_of(if_match)
    if wanted is not None and revision not in wanted:
        raise PreconditionFailedError(f"{what} is at revision {revision} by now; read it again and repeat the change")


@contextmanager
def lost_races_of(if_match: str | None) -> Iterator[None]:
    """Tell a race that was lost in between as a failed precondition, where there is one."""
    try:
        yield
    except PreconditionFailedError:
        raise
    except RevisionConflictError as error:
        if revisions_of(if_match) is None:
            raise
        raise PreconditionFailedError(str(error)) from None
