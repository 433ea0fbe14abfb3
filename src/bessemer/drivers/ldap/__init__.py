"""Directories of people, by LDAP: whether a name and a password belong together, and which groups somebody is in."""
