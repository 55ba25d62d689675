"""Look at both ends, plan, carry: what sync and push share.

Decisions are pure and lie in plan.py. Files of the configuration and texts for people do not enter.
"""
