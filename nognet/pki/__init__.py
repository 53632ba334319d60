"""Certificates of the coordinator and keys of the sites.

`authority` makes the CA and the server certificate, `site_keys` the keys of the sites and their
register, `checks` looks at the files before a process starts, `handshake` at the other end, by the
way that `tunnel` finds; `refusals` and `clock` name causes.
"""
