"""Files that are wrong in any way, and what the commands may do about them.

``choosing`` damages bytes and JSON, ``kitchen`` makes the good files, ``targets`` makes a damaged
one of them and the command that reads it, ``judging`` runs that and says what is wrong with it.
"""
