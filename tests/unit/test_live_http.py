"""Where redirects and playlists may lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.http.location import Location
from moodline.shared.errors import SourceError

HOME = Location("http", "cam.test", 8080, "/live/list.m3u8?token=secret")
SCHEMES = frozenset({"http", "https"})


@pytest.mark.parametrize(
    ("reference", "origin", "target"),
    [
        ("a.ts", ("http", "cam.test", 8080), "/live/a.ts"),
        ("/a.ts?x=1#y", ("http", "cam.test", 8080), "/a.ts?x=1"),
        ("../a.ts", ("http", "cam.test", 8080), "/a.ts"),
        ("//other.test/a", ("http", "other.test", 80), "/a"),
        ("HTTPS://Other.test", ("https", "other.test", 443), "/"),
        ("http://[fd00::1]:81/a:b", ("http", "fd00::1", 81), "/a:b"),
    ],
)
def test_references_lead_where_a_browser_would_go_without_the_token(
    reference: str, origin: tuple[str, str, int], target: str
) -> None:
    joined = HOME.join(reference, SCHEMES)
    assert (joined.origin, joined.target) == (origin, target)


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "data:x",
        "concat:a|b",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "ftp://x/y",
        "crypto:http://x",
        "http://user:pw@cam.test/a",
        "gopher:x",
    ],
)
def test_other_schemes_and_user_names_are_forbidden(reference: str) -> None:
    with pytest.raises(SourceError) as caught:
        HOME.join(reference, SCHEMES)
    assert caught.value.reason == "forbidden_url"


def test_a_scheme_that_the_policy_leaves_out_is_forbidden() -> None:
    with pytest.raises(SourceError) as caught:
        HOME.join("https://cam.test/a", frozenset({"http"}))
    assert caught.value.reason == "forbidden_url"


@given(st.text(max_size=60))
def test_whatever_a_reference_is_there_is_a_location_or_a_typed_error(reference: str) -> None:
    try:
        joined = HOME.join(reference, SCHEMES)
    except SourceError as error:
        assert error.reason in ("forbidden_url", "corrupt")  # noqa: PT017  # either outcome is right
        return
    assert joined.scheme in SCHEMES
    assert joined.host
    assert joined.target.startswith("/")
    assert not set(joined.target) & set(" \r\n\t")


def test_a_location_hides_its_token() -> None:
    assert "secret" not in repr(HOME)
