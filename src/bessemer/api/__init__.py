"""The resource api: Kubernetes' conventions over `core.ports`, with who may do what, and the routes beside them.

``make_app`` builds the ASGI application from an `ApiContext`; ``serve`` runs it over TLS. `api.routes` is the table of
contents: every route names its permission there. It holds no object and no state that a second replica would miss;
what one replica alone has (the agents' sockets) is named in the hosts' leases.
"""
