"""The part that lives on a host: it pulls intent, keeps it on disk, makes it true with the drivers, and reports.

It connects outwards only and reads nothing but its Host, its Claims, their secrets and the content they name. While the
api is away everything goes on; what was to be said is said when it is back.
"""
