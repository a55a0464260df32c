"""How a user wants pages to look: colours and times. A cookie keeps it."""

from typing import Self

import attrs

from riverrun.web.context import Context
from riverrun.web.errors import BadRequest
from riverrun.web.request import Request
from riverrun.web.responses import Response, see_other

THEMES = ("system", "light", "dark")

ZONES = ("utc", "local")

YEAR_S = 365 * 86_400


@attrs.frozen(kw_only=True)
class Preferences:
    """How pages look.

    Attributes:
        theme: system, light or dark.
        zone: utc or local. A browser without scripts always shows UTC.
    """

    theme: str = THEMES[0]
    zone: str = ZONES[0]

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return the preferences in the cookies of a request."""
        theme = request.cookies.get("riverrun_theme")
        zone = request.cookies.get("riverrun_zone")
        return cls(
            theme=theme if theme in THEMES else THEMES[0],
            zone=zone if zone in ZONES else ZONES[0],
        )


def prefer(request: Request, _: Context) -> Response:
    """Keep a preference, and go back to the page on which it was chosen."""
    cookies = []
    for name, known in (("theme", THEMES), ("zone", ZONES)):
        value = request.posted(name)
        if value is not None:
            if value not in known:
                raise BadRequest("filter", f"{name}: expected one of {', '.join(known)}")
            where = f"Path={request.base or '/'}; Max-Age={YEAR_S}; SameSite=Lax; HttpOnly"
            if request.origin.startswith("https:"):
                where += "; Secure"
            cookies.append(("Set-Cookie", f"riverrun_{name}={value}; {where}"))
    return see_other(request.back(), *cookies)
