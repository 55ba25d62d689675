"""Look at both ends, plan, copy: what sync and push share.

Decisions are pure and lie in plan.py. The configuration's files and pages for people do not enter.
"""
