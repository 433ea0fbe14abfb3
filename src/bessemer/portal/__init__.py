"""Web pages over ``client``: server-rendered, live by server-sent events, with the rights of whoever is signed in.

``make_portal`` builds the application. The portal has no rights of its own and keeps nothing: the cookie holds the api
session's bearer, each page is drawn from a mirror that this bearer filled. It is not an api: programs use the real one.
"""

from bessemer.portal.app import make_portal
from bessemer.portal.visit import PortalSettings

__all__ = ["PortalSettings", "make_portal"]
