"""Web pages over ``client``: server-rendered, live by server-sent events, with the rights of whoever is signed in.

``make_portal`` builds the application, ``close_portal`` ends its streams before a server stops. The portal has no
rights of its own and keeps nothing: the cookie holds the api session's bearer, each page is drawn from a mirror that
this bearer filled. It is not an api: programs use the real one.
"""

from bessemer.portal.app import close_portal, make_portal
from bessemer.portal.settings import PortalSettings

__all__ = ["PortalSettings", "close_portal", "make_portal"]
