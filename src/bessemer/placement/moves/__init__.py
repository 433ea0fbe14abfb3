"""Which claims to remove or to move, so that a request fits or a host is empty.

`removal` finds the cheapest removals on one host; `plan` moves claims to other places; `opening` opens several
places at once, and `emptying` chooses which hosts to empty. All are pure: what is to be done is told, and whoever may
do it does it.
"""
