"""The web page: streams as cards at `/`, one stream at `/streams/{id}`, on the same application as the API.

It acts through the API's own functions, with the visitor's rights, so that whatever the API refuses, the page refuses too.
Needs the extra `ui`; without it the API works, and `/` says how to get the page.
"""

from moodline.services.web.mount import mount_page

__all__ = ["mount_page"]
